"""What stands beside the workflows for artists, in Markdown, with fields for a recipe's own words."""

from __future__ import annotations

NOTE = """## Safer {model}

1. Press **Run**. The prompt asks for something mildly unsafe: look for {look_for}. Set **level** in **Safe Model** to \
0 and run again: same seed, not steered.
2. Then a harmless prompt, which must stay as it is: *{harmless}*
3. **Change level first**: 1 is as recommended, 2 twice as strong. Then the sliders: 0 leaves a theme alone.
4. It misses what it should find, or changes what is harmless? Connect harmless prompts such as you use, with **Load \
Safety Prompts**, to **benign_prompts**.

The first run fits the bundled vector to your text encoder on harmless captions and keeps the result. **Safe Model** \
says what it chose and did; **Open as nodes** in its menu shows the steps.

The vector was never measured on the real {model}. Look at what you get.

{advice}"""

FIVE_NOTE = """## Safer {model}, step by step

These five nodes are what **Safe Model** does in one:

1. **Load Safety Vector** loads directions from unsafe to safe. The bundled ones live in a small language model.
2. **Fit Benign Alignment** learns from harmless captions alone how that model's states read in yours; a minute, once. \
Connect harmless prompts such as you use to **benign_prompts**: the vector then tells unsafe from harmless much better.
3. **Transfer Direction** carries the vector over and suggests settings. A vector made for this model needs neither: \
select both and press Ctrl-B.
4. **Category Mixer** weights its categories.
5. **Apply Safety Steering** puts it on the model. Change **level** first; with **settings** at manual you choose all.

The prompt asks for something mildly unsafe; look for {look_for}. Then a harmless one, which must stay as it is: \
*{harmless}*

The **Steering Report** shows what was done at each step.

**What it does not promise.** The bundled vector was never measured on the real {model}. Look at what you get.

{advice}"""

COMPARE_NOTE = """## Unsteered and steered, side by side

1. Press **Run**. **Safety A/B** makes the prompt twice from the same seed, without and with steering. Look for \
{look_for}.
2. **Drag the divider** across the picture: left of it unsteered, right of it steered. Below it stands how different \
the sides are. Both sides are saved as one video too.
3. Now a harmless prompt, whose sides should be the same: *{harmless}*
4. **Change level in Apply Safety Steering first.** 0 is off; 1 is as recommended, 2 twice as strong.
5. Then **the sliders of Category Mixer**: more of one category, less of another, 0 leaves it alone.
6. **It finds too little, or changes what is harmless?** Connect harmless prompts such as you use, with **Load Safety \
Prompts**, to **benign_prompts** of **Fit Benign Alignment**.

The first run takes longer: **Fit Benign Alignment** shows a thousand harmless captions to your text encoder and keeps \
the result. Every run makes two videos, so start small: a short **length** will do.

**What it does not promise.** The bundled vector comes from a language model of 135 million parameters and was never \
measured on the real {model}. Judge by what you see, with harmless prompts too; what steering did stands in **Apply**, \
below its settings.

When you like it, take the workflow of your model: one node, half the time.

{advice}"""
