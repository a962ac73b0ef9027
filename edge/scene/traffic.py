"""Who moves through the street, and where each one is at a given time, without looking at any time before.

Every mover has a place on a loop: it runs along a path that begins and ends out of sight, and comes back as somebody
else, with a new track id. How far it has come is read from a periodic table of speeds with pauses.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edge.scene.car_shapes import Car, draw_car
from edge.scene.cyclist import Cyclist, draw_cyclist
from edge.scene.figure import Outfit
from edge.scene.paths import Pace, Path, draw_pace, make_path
from edge.scene.pedestrian import draw_outfit
from edge.scene.truth import CLASSES

if TYPE_CHECKING:
    from edge.scene.variation import SceneVariation

Model = Outfit | Cyclist | Car


@dataclass(frozen=True, slots=True)
class Actor:
    """One object at one time.

    Attributes:
        class_id: index into ``CLASSES``; track_id: never used again; model: what it looks like.
        s, t: where its foot is, metres; heading: radians from the street's direction to its front.
        travelled: metres since the loop began, drives legs and wheels; speed: metres per second; braking: lamps are on.
    """

    class_id: int
    track_id: int
    model: Model
    s: float
    t: float
    heading: float
    travelled: float
    speed: float
    braking: bool


@dataclass(frozen=True, slots=True)
class Mover:
    """A place in the traffic: a stretch of a path, a pace and a start; who fills it changes with every round."""

    slot: int
    class_id: int
    path: Path
    first: float
    stretch: float
    pace: Pace
    start: float
    reverse: bool
    wander: float


class Traffic:
    """All objects of a street, as a function of time."""

    def __init__(self, variation: SceneVariation, num_objects: int, shares: tuple[float, float] = (0.28, 0.2)) -> None:
        """Fill the street; ``shares`` are those of cars and of bicycles among the objects, pedestrians are the rest."""
        self._variation = variation
        self._slots = max(1, num_objects)
        self._rng = np.random.default_rng([variation.seed, 29])
        num_cars, num_bikes = round(num_objects * shares[0]), round(num_objects * shares[1])
        self._parked = self._draw_parked(num_cars)
        self._movers = self._draw_cars(num_cars - len(self._parked))
        for _ in range(num_bikes):
            self._draw_cyclist()
        while len(self._parked) + len(self._movers) < num_objects:
            self._draw_pedestrians(num_objects)
        self._movers = [self._numbered(mover, row) for row, mover in enumerate(self._movers, len(self._parked))]
        self._model = functools.lru_cache(maxsize=256)(self._draw_model)

    def at(self, time_s: float) -> list[Actor]:
        """Everybody at this time (s), in no special order; those whose place is out of sight included."""
        return [*self._parked, *(self._actor(mover, time_s) for mover in self._movers)]

    def _actor(self, mover: Mover, time_s: float) -> Actor:
        covered = mover.pace.at(time_s)
        rounds, along = divmod(covered + mover.start, mover.stretch)
        model, shift = self._model(mover.slot, mover.class_id, int(rounds))
        # whoever walks comes back the other way, and so do those who walk along
        reverse = mover.reverse ^ (mover.class_id == CLASSES.index("person") and int(rounds) % 2 == 1)
        metres = mover.first + (mover.stretch - along if reverse else along)
        s, t, heading = mover.path.at(metres)
        heading += math.pi if reverse else 0.0
        # everybody keeps a line of their own next to the path
        s, t = s - math.sin(heading) * shift * mover.wander, t + math.cos(heading) * shift * mover.wander
        speed = (covered - mover.pace.at(time_s - 0.3)) / 0.3
        typical = float(mover.pace.distance[-1]) / mover.pace.period_s
        before = (mover.pace.at(time_s - 0.3) - mover.pace.at(time_s - 0.6)) / 0.3
        braking = speed < 0.25 * typical or speed < before - 0.15
        track_id = mover.slot + self._slots * int(rounds)
        return Actor(mover.class_id, track_id, model, s, t, heading, covered + mover.slot, speed, braking)

    def _draw_model(self, slot: int, class_id: int, rounds: int) -> tuple[Model, float]:
        """Who fills a place in this round, and how far from the middle of the path, -1 to 1."""
        rng = np.random.default_rng([self._variation.seed, 31, slot, rounds])
        shift = float(rng.uniform(-1, 1))
        lamps = self._variation.dusk > 0 or self._variation.rain
        match CLASSES[class_id]:
            case "person":
                return draw_outfit(rng, self._variation.rain), shift
            case "bicycle":
                return draw_cyclist(rng), shift
            case _:
                return draw_car(rng, lamps), shift

    @staticmethod
    def _numbered(mover: Mover, slot: int) -> Mover:
        return Mover(
            slot,
            mover.class_id,
            mover.path,
            mover.first,
            mover.stretch,
            mover.pace,
            mover.start,
            mover.reverse,
            mover.wander,
        )

    def _seen(self, path: Path, margin: float) -> tuple[float, float]:
        """First metre and length of what is in the picture of a path, 0 where nothing is."""
        camera = self._variation.camera
        x, z = camera.to_view(path.s, path.t)
        near = camera.focal_px * (camera.height_m - 1.9) / (camera.height - camera.horizon_px)
        columns = camera.width / 2 + camera.focal_px * x / np.maximum(z, 0.1)
        seen = (z > max(1.2, near)) & (columns > 0) & (columns < camera.width)
        where = np.flatnonzero(seen)
        if len(where) == 0:
            return 0.0, 0.0
        first = max(0.0, float(path.length[where[0]]) - margin)
        return first, max(4.0, min(float(path.length[-1]), float(path.length[where[-1]]) + margin) - first)

    def _draw_parked(self, num_cars: int) -> list[Actor]:
        """Cars that stand at the kerb all the time."""
        variation, rng = self._variation, self._rng
        wanted = int(rng.integers(0, num_cars + 1)) if any(variation.parking) else 0
        places = [
            (float(s), side)
            for side in (-1, 1)
            if variation.parking[side > 0]
            for s in np.arange(5.0, variation.corner - 5, 6.2)
        ]
        parked: list[Actor] = []
        for row in rng.permutation(len(places)):
            s, side = places[row]
            s += float(rng.uniform(-0.5, 0.5))
            column, _, z = variation.camera.point(s, side * (variation.road_half - 1.05))
            if z > 5.5 and -0.1 < column / variation.camera.width < 1.1 and len(parked) < wanted:
                heading = 0.0 if (side > 0) != variation.mirrored else math.pi
                model = draw_car(rng, lamps=False)
                parked.append(
                    Actor(2, len(parked), model, s, side * (variation.road_half - 1.05), heading, 0.0, 0.0, False)
                )
        return parked

    def _lane(self, lateral: float, side: int) -> Path:
        """From behind the camera along one side of the street, then round the corner on that side."""
        variation = self._variation
        turn = variation.cross[0] + lateral
        return make_path([(-14.0, side * lateral), (turn, side * lateral), (turn, side * (variation.wall + 11))], 2.5)

    def _draw_cars(self, wanted: int) -> list[Mover]:
        """Cars of a lane share one pace, so that they queue and never run into each other."""
        rng = self._rng
        movers: list[Mover] = []
        sides = [1, -1] if rng.random() < 0.5 else [-1, 1]
        for row, side in enumerate(sides):
            path = self._lane(1.75, side)
            first, stretch = self._seen(path, 4.5)
            if stretch == 0:
                continue
            pace = draw_pace(rng, float(rng.uniform(4.0, 9.0)), 2.5, (1.5, 5.0), 1.6)
            room = max(1, int(stretch / 8.5))
            share = min(room, wanted - wanted // 2 if row == 0 else wanted - len(movers))
            away = (side > 0) != self._variation.mirrored
            for place in range(share):
                start = (place + float(rng.uniform(0.0, 0.2))) * stretch / share
                movers.append(Mover(0, 2, path, first, stretch, pace, start, not away, 0.12))
        return movers

    def _draw_cyclist(self) -> None:
        """A cyclist on one side of the road, if that is in the picture."""
        rng, variation = self._rng, self._variation
        side = 1 if rng.random() < 0.5 else -1
        path = self._lane(3.05, side)
        first, stretch = self._seen(path, 1.6)
        pace = draw_pace(rng, float(rng.uniform(2.4, 5.2)), 0.7, (1.5, 3.5), 1.2)
        away = (side > 0) != variation.mirrored
        if stretch > 0:
            start = float(rng.uniform(0, stretch))
            self._movers.append(Mover(0, 1, path, first, stretch, pace, start, not away, 0.25))

    def _draw_pedestrians(self, num_objects: int) -> None:
        """One pedestrian, or two who walk together, on a way that is in the picture."""
        rng = self._rng
        path = self._walk()
        first, stretch = self._seen(path, 1.0)
        for _ in range(12):
            if stretch > 6:
                break
            path = self._walk()
            first, stretch = self._seen(path, 1.0)
        stretch = max(stretch, 4.0)
        pace = draw_pace(rng, float(np.clip(rng.normal(1.3, 0.25), 0.7, 2.4)), 1.6, (1.5, 7.0), 0.7)
        start = float(rng.uniform(0, stretch))
        reverse = bool(rng.random() < 0.5)
        self._movers.append(Mover(0, 0, path, first, stretch, pace, start, reverse, 0.35))
        room = len(self._parked) + len(self._movers) < num_objects
        if room and rng.random() < 0.2:
            beside = Path(path.s + 0.2, path.t + float(rng.choice([-0.6, 0.6])), path.length)
            self._movers.append(Mover(0, 0, beside, first, stretch, pace, start, reverse, 0.1))

    def _walk(self) -> Path:
        """Along a pavement and round the corner, or across the road."""
        rng, variation = self._rng, self._variation
        side = 1 if rng.random() < 0.5 else -1
        lane = variation.road_half + float(rng.uniform(1.0, max(1.3, variation.pavement - 0.7)))
        beyond = variation.corner + variation.pavement - (lane - variation.road_half)
        if rng.random() < 0.32:
            crossing = float(rng.uniform(8.0, max(9.0, variation.corner - 1)))
            corners = [(-6.0, side * lane), (crossing, side * lane), (crossing, -side * lane)]
            end = beyond if rng.random() < 0.5 else -6.0
            corners.append((end, -side * lane))
            if end > 0:
                corners.append((end, -side * (variation.wall + 7)))
            return make_path(corners, 0.7)
        return make_path([(-6.0, side * lane), (beyond, side * lane), (beyond, side * (variation.wall + 7))], 0.8)
