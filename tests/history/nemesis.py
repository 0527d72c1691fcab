"""What goes wrong, and when: a schedule made from a seed alone, and the one who carries it out."""

import random

from proxy import CALM, DOWN, UP, Faults

LINKS = ("workers", "http")
# what, how often, made by
WEIGHTS = {"kill": 24, "stop": 6, "cut": 18, "mute": 14, "half_open": 14, "slow": 8, "narrow": 5,
           "shred": 7, "clump": 4, "refuse": 3, "pause": 3}


def schedule(seed, seconds):
    """[(at_s, what, parameters)]: no faults in the first second. A replay and a redrive come twice
    each, in the middle."""
    rng = random.Random(f"schedule {seed}")
    plan, at = [], 1.0
    while at < seconds - 0.5:
        what = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        plan.append((round(at, 3), what, parameters(what, rng)))
        at += rng.uniform(0.1, 0.7)
    for share in (0.4, 0.7):
        plan.append((seconds * share, "replay", {"subscription": rng.choice(("plain", "fragile")),
                                                 "wire": rng.random() < 0.5}))
        plan.append((seconds * (share + 0.1), "redrive",
                     {"subscription": rng.choice(("ordered", "fragile"))}))
    return sorted(plan, key=lambda step: step[0])


def parameters(what, rng):
    link = rng.choices(LINKS, (2, 1))[0]
    share = rng.choice((0.3, 0.6, 1.0))
    for_s = round(rng.uniform(0.3, 2.0), 3)
    if what in ("kill", "stop"):
        return {"down_s": round(rng.choice((0, 0, 0.1, 0.5)), 3)}
    if what == "cut":
        kind = rng.choice(("rst", "rst", "fin", "half_up", "half_down"))
        return {"link": link, "share": share, "kind": kind}
    if what == "mute":  # the next answer is lost with its connection
        return {"link": link, "share": share}
    if what == "half_open":
        directions = rng.choice(((UP,), (DOWN,), (UP, DOWN)))
        return {"link": link, "share": share, "directions": directions,
                "for_s": round(rng.uniform(0.5, 4.5), 3), "then": rng.choice(("deliver", "reset"))}
    if what == "slow":
        return {"link": link, "for_s": for_s,
                "faults": Faults(delay_ms=rng.randrange(1, 150), jitter_ms=rng.randrange(100))}
    if what == "narrow":
        return {"link": link, "for_s": for_s,
                "faults": Faults(bytes_per_s=rng.choice((20_000, 60_000, 200_000)))}
    if what == "shred":
        return {"link": link, "for_s": for_s, "faults": Faults(piece_max=rng.choice((3, 30, 300)))}
    if what == "clump":
        return {"link": link, "for_s": for_s, "faults": Faults(coalesce_ms=rng.randrange(20, 150))}
    if what == "refuse":
        return {"link": link, "for_s": for_s}
    return {"subscription": rng.choice(("plain", "ordered", "fragile")), "for_s": for_s}


class Nemesis:
    """Carries a schedule out, in the thread that calls run()."""

    def __init__(self, run, plan):
        self.run_, self.history, self.proxy = run, run.history, run.proxy
        self.plan = list(plan)
        self.counts = dict.fromkeys((*WEIGHTS, "replay", "redrive"), 0)
        self.later = []  # (at_s, function): what ends a fault

    def run(self, seconds, elapsed, wait_until):
        """elapsed() and wait_until(at_s): the run's clock."""
        while self.plan or self.later:
            at = min([self.plan[0][0]] if self.plan else [], default=seconds)
            at = min([at, *(one[0] for one in self.later)])
            if at >= seconds:
                break
            wait_until(at)
            for one in [o for o in self.later if o[0] <= elapsed()]:
                self.later.remove(one)
                one[1]()
            if self.plan and self.plan[0][0] <= elapsed():
                _, what, parameters = self.plan.pop(0)
                touched = getattr(self, what)(elapsed(), **parameters)
                self.counts[what] += 1
                note = {k: v for k, v in parameters.items() if k != "faults"}
                if "faults" in parameters:
                    note["faults"] = parameters["faults"]._asdict()
                self.history.add("nemesis", "info", what, touched=touched, **note)
        wait_until(seconds)
        for _, end in self.later:
            end()
        self.proxy.heal()

    def kill(self, now, down_s):
        self.run_.restart_broker(kill=True, down_s=down_s)

    def stop(self, now, down_s):
        self.run_.restart_broker(kill=False, down_s=down_s)

    def cut(self, now, link, share, kind):
        return self.proxy.each(link, share, lambda pipe: pipe.cut(kind))

    def mute(self, now, link, share):
        def arm(pipe):
            pipe.cut_on_answer = True
        return self.proxy.each(link, share, arm)

    def half_open(self, now, link, share, directions, for_s, then):
        self.later.append((now + for_s, lambda: self.proxy.end_stalls(lambda pipe: then)))
        return self.proxy.each(link, share, lambda pipe: pipe.stall(directions))

    def _faults(self, now, link, for_s, faults):
        self.proxy.set_faults(link, faults, faults)
        self.later.append((now + for_s, lambda: self.proxy.set_faults(link, CALM, CALM)))

    slow = narrow = shred = clump = _faults

    def refuse(self, now, link, for_s):
        self.proxy.refuse(link, True)
        self.later.append((now + for_s, lambda: self.proxy.refuse(link, False)))

    def pause(self, now, subscription, for_s):
        self.run_.verb(subscription, "pause")
        self.later.append((now + for_s, lambda: self.run_.verb(subscription, "resume")))

    def replay(self, now, subscription, wire):
        self.run_.replay(subscription, wire)

    def redrive(self, now, subscription):
        self.run_.redrive(subscription)
