"""Which copies come in, which go, and which may not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st

from controller.residency.decide import Act
from controller.residency.decide import place as place_by
from controller.residency.rooms import Copy, Evict, Load, ModelNeed, ServerRoom
from controller.residency.value import Outlook

NOW_S = 1000.0
LIKELY, UNLIKELY = Outlook(0.9, 0.1), Outlook(0.01, 0.001)


def place(
    now_s: float, servers: Sequence[ServerRoom], models: Sequence[ModelNeed], outlooks: Mapping[str, Outlook]
) -> Sequence[Act]:
    """With nothing expected of models that `outlooks` leaves out."""
    return place_by(now_s, servers, models, lambda model: outlooks.get(model, Outlook()))


def need(name: str, mib: float = 10, **more: float) -> ModelNeed:
    return ModelNeed(name, mib, 20.0, **more)  # type: ignore[arg-type]


def asked_for(name: str, mib: float = 10, waiting: int = 1, oldest_s: float = 1.0) -> ModelNeed:
    return need(name, mib, waiting=waiting, wanted=1, oldest_s=oldest_s)


def copy(model: str, mib: float = 10, **more: object) -> Copy:
    return Copy(f"{model}.000001", model, mib, **more)  # type: ignore[arg-type]


def server(*copies: Copy, name: str = "s1", budget: float = 30, **more: object) -> ServerRoom:
    return ServerRoom(name, budget, copies, **more)  # type: ignore[arg-type]


def brought(acts: Sequence[Act]) -> list[tuple[str, str]]:
    return [(act.model, act.server) for act in acts if isinstance(act, Load)]


def gone(acts: Sequence[Act]) -> list[str]:
    return [act.model for act in acts if isinstance(act, Evict)]


def test_a_model_that_is_waited_for_is_loaded_into_free_room() -> None:
    assert brought(place(NOW_S, [server()], [asked_for("a")], {})) == [("a", "s1")]


def test_a_model_that_nobody_wants_stays_out() -> None:
    assert place(NOW_S, [server()], [need("a")], {"a": Outlook()}) == ()


def test_the_copy_that_is_worth_least_per_mib_makes_room() -> None:
    """A big model that is hardly used goes before small ones that are."""
    held = server(copy("a", 10), copy("b", 20))
    outlooks = {"a": Outlook(0.3, 0.1), "b": Outlook(0.4, 0.1)}
    acts = place(NOW_S, [held], [need("a"), need("b", 20), asked_for("c")], outlooks)
    assert gone(acts) == ["b"]


def test_room_is_made_once_and_waited_for() -> None:
    """While a victim leaves, no other goes, and nothing is loaded before it has left."""
    held = server(copy("a", state="leaving"), copy("b"), copy("c"))
    assert place(NOW_S, [held], [need("a"), need("b"), need("c"), asked_for("d")], {}) == ()


def test_a_copy_that_has_just_come_up_stays() -> None:
    """Requests that waited for it are on their way there, though no report tells of them yet."""
    held = server(copy("a", since_s=NOW_S - 1), budget=10)
    assert place(NOW_S, [held], [need("a"), asked_for("b", waiting=5)], {}) == ()


def test_a_model_that_was_used_lately_is_not_brought_back_before_it_is_asked_for() -> None:
    """Its deployment still wants a replica; others that need the room would go round in circles."""
    assert place(NOW_S, [server(copy("a"), budget=10)], [need("a"), need("b", wanted=1)], {"a": LIKELY}) == ()


def test_busy_pinned_and_waited_for_copies_stay() -> None:
    held = server(copy("busy", busy=1), copy("pinned"), copy("waited"))
    models = [need("busy"), need("pinned", pinned=True), asked_for("waited"), asked_for("d", waiting=50)]
    assert place(NOW_S, [held], models, {}) == ()


def test_what_a_deployment_has_whatever_the_load_is_brought_and_kept() -> None:
    acts = place(NOW_S, [server()], [need("a", least=1)], {})
    assert brought(acts) == [("a", "s1")]
    held = server(copy("a"), budget=10)
    assert place(NOW_S, [held], [need("a", least=1), asked_for("b", waiting=9)], {}) == ()


def test_one_copy_is_loaded_at_a_time_on_each_gpu() -> None:
    """Servers that share a GPU take turns; the one with most waiting for longest goes first."""
    models = [asked_for("a", oldest_s=1), asked_for("b", oldest_s=9), asked_for("c", waiting=3, oldest_s=4)]
    shared = [server(name="s1", gpu="g"), server(name="s2", gpu="g")]
    assert [model for model, _ in brought(place(NOW_S, shared, models, {}))] == ["c"]
    loading = [server(copy("x", state="loading", since_s=NOW_S - 5))]
    assert brought(place(NOW_S, loading, [*models, need("x")], {})) == []


def test_an_idle_gpu_is_preferred_to_one_that_loads() -> None:
    servers = [
        server(copy("x", state="loading", since_s=NOW_S - 1), name="s1"),
        server(copy("y"), copy("z"), copy("w"), name="s2"),
    ]
    models = [need("x"), need("y"), need("z"), need("w"), asked_for("a")]
    acts = place(NOW_S, servers, models, {"w": LIKELY, "y": LIKELY, "z": UNLIKELY})
    assert gone(acts) == ["z"]


def test_a_likely_model_is_loaded_ahead_only_where_its_victim_is_worth_clearly_less() -> None:
    held = server(copy("a"), copy("b"), copy("c"))
    models = [need(name) for name in "abcd"]
    common = dict.fromkeys("abc", Outlook(0.5, 0.1))
    assert place(NOW_S, [held], models, common | {"d": Outlook(0.6, 0.1)}) == ()
    assert gone(place(NOW_S, [held], models, common | {"b": UNLIKELY, "d": Outlook(0.6, 0.1)})) == ["b"]


def test_a_second_copy_goes_to_another_server() -> None:
    servers = [server(copy("a"), name="s1"), server(name="s2")]
    assert brought(place(NOW_S, servers, [need("a", wanted=2)], {"a": LIKELY})) == [("a", "s2")]


def test_measured_memory_counts_where_it_is_more_than_the_copies_need() -> None:
    held = server(copy("a"), budget=30, used_mib=25)
    acts = place(NOW_S, [held], [need("a", least=1), asked_for("b")], {})
    assert acts == ()


def test_a_closed_server_takes_nothing() -> None:
    assert place(NOW_S, [server(open=False)], [asked_for("a")], {}) == ()


def test_a_model_that_fits_nowhere_costs_nobody_its_place() -> None:
    assert place(NOW_S, [server(copy("a"))], [need("a"), asked_for("big", 40)], {}) == ()


SIZES = st.integers(1, 12)


@given(
    st.lists(st.lists(SIZES, max_size=5), min_size=1, max_size=3),
    st.lists(st.tuples(SIZES, st.integers(0, 3)), max_size=6),
    st.data(),
)
def test_no_decision_goes_over_a_budget_or_loads_two_at_once(
    held: list[list[int]], wanted: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Whatever is there: loads fit beside all that is still there, and each GPU loads one."""
    servers, models = [], []
    for number, sizes in enumerate(held):
        copies = []
        for place_, mib in enumerate(sizes):
            name = f"m{number}-{place_}"
            state = (
                data.draw(st.sampled_from(["ready", "ready", "leaving", "loading"]))
                if place_ == 0
                else "ready"
            )
            copies.append(Copy(f"{name}.0", name, mib, state, data.draw(st.integers(0, 1)), NOW_S - 1))
            models.append(need(name, mib))
        budget = sum(sizes) + data.draw(st.integers(0, 8))
        servers.append(
            ServerRoom(f"s{number}", budget, tuple(copies), data.draw(st.sampled_from([None, "g"])))
        )
    models += [asked_for(f"w{n}", mib, waiting=waits) for n, (mib, waits) in enumerate(wanted)]
    acts = place(NOW_S, servers, models, {})
    sizes_of = {model.name: model.mib for model in models}
    for one in servers:
        came = [act for act in acts if isinstance(act, Load) and act.server == one.name]
        assert (
            sum(c.mib for c in one.copies) + sum(sizes_of[a.model] for a in came) <= one.budget_mib
            or not came
        )
    gpus = [one.gpu or one.name for one in servers for c in one.copies if c.state == "loading"]
    by_name = {one.name: one.gpu or one.name for one in servers}
    begun = [by_name[act.server] for act in acts if isinstance(act, Load)]
    assert len(begun) == len(set(begun))
    assert not set(begun) & set(gpus)
    busy = {c.replica for one in servers for c in one.copies if c.busy or c.state != "ready"}
    assert not busy & {act.replica for act in acts if isinstance(act, Evict)}


def test_a_copy_stays_while_another_load_of_its_model_has_to_wait() -> None:
    """A second copy that failed to come up must not cost the first one its place."""
    held = server(copy("a"), budget=10)
    models = [need("a", pinned=True, failed=True), asked_for("b", waiting=9)]
    assert place(NOW_S, [held], models, {}) == ()
    assert place(NOW_S, [server()], [asked_for("a")._replace(failed=True)], {}) == ()


def test_a_server_has_each_name_once() -> None:
    """Two deployments may be one model on their servers: loaded twice it is there once, and goes at once."""
    held = server(copy("a", target="llm"), name="s1")
    other = asked_for("b")._replace(target="llm")
    first = need("a")._replace(target="llm", least=1)
    assert place(NOW_S, [held], [first, other], {}) == ()
    assert brought(place(NOW_S, [held, server(name="s2")], [first, other], {})) == [("b", "s2")]
    assert gone(place(NOW_S, [held], [first._replace(least=0), other], {})) == ["a"]


def test_no_room_is_made_for_a_second_copy_on_the_only_server() -> None:
    quick = ModelNeed("a", 10, 0.5, least=2)
    held = server(copy("b"), budget=20)
    acts = place(NOW_S, [held], [quick, need("b")], {})
    assert (brought(acts), gone(acts)) == ([("a", "s1")], [])
