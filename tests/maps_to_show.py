"""Made-up beatmaps whose looks are known, for the tests of what is shown and drawn."""

from beatmaps.osu_file import Beatmap, parse_beatmap

COLOURS = "Combo1 : 255,0,0\nCombo2 : 0,255,0\nCombo3 : 0,0,255"


def made_up(
    objects: str, *, colours: str = COLOURS, events: str = "", version: int = 14
) -> Beatmap:
    """A map with the given hit object lines, CS 4, 500 ms a beat, 140 px a beat."""
    text = f"""osu file format v{version}

[General]
StackLeniency: 0.7

[Metadata]
Title:Made up

[Difficulty]
CircleSize:4
ApproachRate:9
SliderMultiplier:1.4

[Events]
{events}

[TimingPoints]
0,500,4,2,0,60,1,0

[Colours]
{colours}

[HitObjects]
{objects}
"""
    return parse_beatmap(text.encode("utf-8"), "made up.osu")


def many_circles(count: int, combo: int) -> Beatmap:
    """Circles 200 ms apart, with a new combo every `combo` of them."""
    rows = [
        f"{50 + 37 * i % 400},{50 + 53 * i % 280},{1000 + 200 * i},{1 if i % combo else 5},0"
        for i in range(count)
    ]
    return made_up("\n".join(rows))


def one_of_each() -> Beatmap:
    """All kinds of curves and objects, with repeats, stacks, a break and a path without extent."""
    return made_up(
        "100,100,1000,6,0,P|150:150|200:100,3,140\n"
        "200,100,2600,1,2\n"
        "100,100,3000,2,4,B|200:200|200:200|300:100,1,200,2|8\n"
        "300,300,4200,1,0\n300,300,4400,1,8\n301,301,4600,1,0\n"
        "100,100,5000,2,0,C|200:200|300:100,4,100\n"
        "256,192,8000,12,0,9000\n"
        "400,100,9500,2,0,L|400:100,1,50\n"
        "60,300,10000,2,0,B|100:200|200:400|300:300,2,250\n",
        events="2,6600,7500",
    )
