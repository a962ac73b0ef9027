"""Human figures in three dimensions: where the joints are while walking or riding, and how limbs are painted.

Model metres: forward, right, up. A view turns them into canvas metres and a depth away from the viewer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from edge.scene.brush import Canvas, Colour, Point, mix, shade

Joint = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class View:
    """From where a model is seen, without perspective.

    Attributes:
        heading: radians between the viewing direction and the model's front: 0 walks away, pi/2 to the right.
        elevation: radians that the viewer looks down.
    """

    heading: float
    elevation: float

    def flat(self, joint: Joint) -> Point:
        """Canvas metres of a point."""
        forward, right, up = joint
        cos, sin = math.cos(self.heading), math.sin(self.heading)
        x, depth = forward * sin + right * cos, forward * cos - right * sin
        return x, up * math.cos(self.elevation) + depth * math.sin(self.elevation)

    def depth(self, joint: Joint) -> float:
        """Metres behind the model's axis."""
        return joint[0] * math.cos(self.heading) - joint[1] * math.sin(self.heading)


@dataclass(frozen=True, slots=True)
class Outfit:
    """What a person looks like. Colours are B, G, R in 0..255; sizes are metres.

    Attributes:
        height: of the person; build: width factor.
        top, bottom, shoes, hair, skin: colours; second: of stripes, scarf, helmet or umbrella; bag_colour: of the bag.
        sleeves: ``long`` or ``short``; legs: ``trousers``, ``shorts`` or ``skirt``.
        coat: how far the top reaches below the hip, in metres.
        hat: ``none``, ``cap``, ``hood``, ``long hair`` or ``helmet``; bag: ``none``, ``backpack`` or ``handbag``.
        stripes, umbrella: whether there are any.
        seed: chooses the grain of the cloth.
    """

    height: float
    build: float
    top: Colour
    second: Colour
    bottom: Colour
    shoes: Colour
    hair: Colour
    skin: Colour
    bag_colour: Colour
    sleeves: str
    legs: str
    coat: float
    hat: str
    bag: str
    stripes: bool
    umbrella: bool
    seed: int


@dataclass(frozen=True, slots=True)
class Painter:
    """Paints body parts on a canvas as seen from a view; ``light`` is -1 for light from the left, 1 from the right."""

    canvas: Canvas
    view: View
    light: float

    def limb(self, a: Joint, b: Joint, ra: float, rb: float, colour: Colour) -> None:
        """A tapered limb between two joints."""
        self.canvas.limb(self.view.flat(a), self.view.flat(b), ra, rb, colour, self.light)

    def chain(
        self, joints: tuple[Joint, Joint, Joint], radii: tuple[float, float, float], colours: tuple[Colour, Colour]
    ) -> None:
        """Two limbs that meet, the lower one painted first."""
        self.limb(joints[1], joints[2], radii[1], radii[2], colours[1])
        self.limb(joints[0], joints[1], radii[0], radii[1], colours[0])

    def head(self, centre: Joint, radius: float, outfit: Outfit) -> None:
        """Head with hair or hat; the face is where the model's front is turned to the viewer."""
        canvas, view = self.canvas, self.view
        x, y = view.flat(centre)
        frontal = -math.cos(view.heading)
        side = math.sin(view.heading)
        canvas.oval((x, y), radius * 0.8, radius, 0, shade(outfit.hair, 0.75))
        canvas.oval((x + side * 0.1 * radius, y), radius * 0.76, radius * 0.96, 0, outfit.hair)
        if frontal > -0.6:
            face = (x + side * radius * 0.28, y - radius * 0.14)
            reach = radius * (0.5 + 0.2 * max(0.0, frontal))
            canvas.oval(face, reach, radius * 0.8, 0, shade(outfit.skin, 0.8))
            canvas.oval((face[0] + 0.1 * self.light * radius, face[1]), reach * 0.75, radius * 0.68, 0, outfit.skin)
        if outfit.hat in ("cap", "helmet"):
            self._cap(x, y, radius, side, outfit)
        elif outfit.hat == "long hair":
            back = x - side * radius * 0.5
            canvas.oval((back, y - radius * 0.5), radius * 0.5, radius * 1.1, 0, shade(outfit.hair, 0.9))

    def _cap(self, x: float, y: float, radius: float, side: float, outfit: Outfit) -> None:
        bend = [math.pi * step / 10 for step in range(11)]
        grow = 1.15 if outfit.hat == "helmet" else 0.95
        dome = [(x + grow * radius * 0.9 * math.cos(a), y + radius * (0.15 + grow * 0.95 * math.sin(a))) for a in bend]
        self.canvas.polygon(dome, shade(outfit.second, 0.85))
        self.canvas.oval(
            (x + self.light * 0.2 * radius, y + radius * 0.6),
            radius * 0.45,
            radius * 0.3,
            0,
            shade(outfit.second, 1.1, 0.15),
        )
        self.canvas.oval(
            (x + side * radius * 0.7, y + radius * 0.2), radius * 0.5, radius * 0.14, 0, shade(outfit.second, 0.6)
        )

    def torso(self, hip: Joint, neck: Joint, outfit: Outfit, widths: tuple[float, float]) -> None:
        """Trunk from hip to neck: widths are half the shoulder breadth and half the depth of the chest."""
        turn = abs(math.cos(self.view.heading))
        shoulder = widths[0] * turn + widths[1] * (1 - turn)
        waist, hem = shoulder * 0.82, shoulder * (0.86 + 0.5 * outfit.coat)
        (hx, hy), (nx, ny) = self.view.flat(hip), self.view.flat(neck)
        low = hy - outfit.coat - 0.06
        side = [
            (shoulder * 0.45, nx, ny + 0.02), (shoulder, nx, ny - 0.05), (shoulder * 0.96, nx, ny - 0.18),
            (waist, hx, hy + 0.12), (hem, hx, low),
        ]  # fmt: skip
        outline = [(x - out, y) for out, x, y in side] + [(x + out, y) for out, x, y in side[::-1]]
        self.canvas.polygon(outline, shade(outfit.top, 0.66))
        for shrink, gain, move in ((0.78, 0.88, 0.1), (0.45, 1.06, 0.25)):
            axis = [hx + (nx - hx) * (y - hy) / max(0.1, ny - hy) for _, y in outline]
            inner = [
                (a + (x - a) * shrink + self.light * move * shoulder, y)
                for a, (x, y) in zip(axis, outline, strict=True)
            ]
            self.canvas.polygon(inner, shade(outfit.top, gain))
        if outfit.stripes:
            for step in range(1, 6):
                y, part = hy + (ny - 0.08 - hy) * step / 6, shoulder * 0.86
                middle = hx + (nx - hx) * step / 6
                self.canvas.line([(middle - part, y), (middle + part, y)], 0.03, mix(outfit.second, outfit.top, 0.2))
        elif -math.cos(self.view.heading) > 0.3:
            self.canvas.line([(nx, ny - 0.05), (hx, low + 0.04)], 0.018, shade(outfit.top, 0.55))


def walk_joints(phase: float, height: float, stride: float) -> dict[str, tuple[Joint, Joint, Joint]]:
    """Joints of a walking person: hip, knee, ankle and shoulder, elbow, hand, left and right.

    Args:
        phase: of the gait, radians.
        height: of the person, metres.
        stride: 1 for a walk, 0 for standing still.
    """
    joints: dict[str, tuple[Joint, Joint, Joint]] = {}
    bob = 0.012 * height * math.cos(2 * phase) * stride
    for side, name in ((-1, "left"), (1, "right")):
        swing = math.sin(phase + (math.pi if side > 0 else 0.0)) * 0.46 * stride
        lifting = max(0.0, math.cos(phase + (math.pi if side > 0 else 0.0))) * stride
        knee_bend = 0.1 * stride + 0.75 * lifting * 0.9
        hip = (0.0, side * 0.052 * height, 0.52 * height + bob)
        knee = (
            hip[0] + 0.245 * height * math.sin(swing + 0.25 * lifting),
            hip[1],
            hip[2] - 0.245 * height * math.cos(swing + 0.25 * lifting),
        )
        low = swing + 0.25 * lifting - knee_bend
        ankle = (knee[0] + 0.235 * height * math.sin(low), hip[1] * 0.9, knee[2] - 0.235 * height * math.cos(low))
        joints[f"{name} leg"] = (hip, knee, ankle)
        arm = -swing * 0.85
        shoulder = (0.0, side * 0.108 * height, 0.8 * height + bob)
        elbow = (0.165 * height * math.sin(arm), side * 0.128 * height, shoulder[2] - 0.165 * height * math.cos(arm))
        bent = arm + 0.25 + 0.2 * stride
        hand = (
            elbow[0] + 0.15 * height * math.sin(bent),
            side * 0.122 * height,
            elbow[2] - 0.15 * height * math.cos(bent),
        )
        joints[f"{name} arm"] = (shoulder, elbow, hand)
    return joints
