"""The page of a listening test is loudness-matched and blind; its results have exact statistics."""

import collections
import itertools
import json
import re

import numpy as np
import pytest
import scipy.signal
import scipy.stats
import soundfile

from specdiff_jax.audio import files
from specdiff_jax.evaluation.listening import page as listening
from specdiff_jax.evaluation.listening import report
from specdiff_jax.evaluation.listening import results as listening_results
from tests.helpers import synth
from tests.helpers.listening_clips import HOSTILE, RATE, write_clips


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Return (sets with hostile names, reference)."""
    sets = write_clips(tmp_path_factory.mktemp("clips"), ["reference", *HOSTILE])
    reference = sets.pop("reference")
    return sets, reference


@pytest.fixture(scope="module", params=[False, True], ids=["generated", "matched"])
def page(request, clips, tmp_path_factory):
    """Return (path, facts of the written page, contents that are read back)."""
    path = tmp_path_factory.mktemp("page") / "listening.html"
    options = {"title": HOSTILE[0], "seed": 4, "seconds": 0.9}
    facts = listening.write_listening_page(
        path, *clips, ("mushra", "abx"), request.param, **options
    )
    return path, facts, listening.read_listening_page(path)


def test_listening_page_clips_are_equally_loud_and_none_clips(page):
    _, facts, test = page
    for pcm in test["clips"].values():
        wave = pcm / 32768
        assert listening.measure_loudness(wave, RATE) == pytest.approx(facts["loudness"], abs=0.1)
        assert 20 * np.log10(np.abs(wave).max()) <= listening.PEAK_DB + 0.01
    assert facts["loudness"] == listening.TARGET_LUFS and facts["silent"] == []


def test_match_loudness_lowers_all_for_a_peak_and_names_silence(tmp_path):
    sets = write_clips(tmp_path, "ab", count=2)
    wave, _ = soundfile.read(sets["a"][0])
    wave[::4000] = 0.99
    files.write(sets["a"][0], wave, RATE)
    files.write(sets["b"][0], 0 * wave, RATE)
    facts = listening.write_listening_page(tmp_path / "page.html", sets, kinds=("abx",))
    test = listening.read_listening_page(facts["path"])
    levels = sorted(listening.measure_loudness(pcm / 32768, RATE) for pcm in test["clips"].values())
    assert levels[0] == -np.inf and facts["silent"] == [str(sets["b"][0])]
    assert facts["loudness"] < listening.TARGET_LUFS
    assert levels[1:] == pytest.approx([facts["loudness"]] * 3, abs=0.1)
    peak = max(np.abs(pcm).max() for pcm in test["clips"].values()) / 32768
    assert 20 * np.log10(peak) == pytest.approx(listening.PEAK_DB, abs=0.01)


def test_trial_contains_each_stimulus_once(page):
    _, facts, test = page
    roles, count = test["key"]["clips"], len(HOSTILE)
    rating = [trial for trial in test["trials"] if trial["kind"] == "mushra"]
    expected = sorted([("set", n) for n in range(count)] + [("reference", -1), ("anchor", -1)])
    for trial in rating:
        actual = [
            (roles[one][0], -1 if roles[one][1] is None else roles[one][1])
            for one in trial["clips"]
        ]
        assert sorted(actual) == expected
        assert len({roles[one][2] for one in trial["clips"]}) == 1
        assert (trial["open"] is None) == (not test["matched"])
        assert trial["open"] is None or roles[trial["open"]] == [
            "open",
            None,
            roles[trial["clips"][0]][2],
        ]
    assert sorted(roles[trial["clips"][0]][2] for trial in rating) == [0, 1, 2]
    pairs = collections.Counter(
        tuple(sorted(tuple(roles[one][1:]) for one in trial["clips"]))
        for trial in test["trials"]
        if trial["kind"] == "abx"
    )
    both = itertools.product(itertools.combinations(range(count), 2), range(3))
    assert pairs == {((a, place), (b, place)): 1 for (a, b), place in both}
    assert facts["trials"] == len(test["trials"]) == 3 + 9
    assert set(test["clips"]) == set(roles) and facts["clips"] == len(roles)


def test_listening_page_contains_the_samples_of_the_files(page, clips):
    _, _, test = page
    sets, reference = clips
    assert test["key"]["sets"] == HOSTILE
    for one, (role, number, place) in test["key"]["clips"].items():
        if role == "anchor":
            continue
        path = sets[HOSTILE[number]][place] if role == "set" else reference[place]
        wave, pcm = soundfile.read(path)[0][: round(0.9 * RATE)], test["clips"][one][0]
        inner = slice(200, -200)  # without the fades
        gain = pcm[inner] @ wave[inner] / (wave[inner] @ wave[inner])
        np.testing.assert_allclose(pcm[inner], gain * wave[inner], atol=0.6)


def test_listening_page_does_not_reveal_the_sets(page, clips):
    path, _, test = page
    text = path.read_text("utf-8")
    for name in [*HOSTILE[1:], *(file.name for paths in clips[0].values() for file in paths)]:
        assert name not in text and json.dumps(name)[1:-1] not in text
    data = json.loads(re.search(r'id="test">(.*?)</script>', text)[1])
    bodies = list(data["clips"].values())
    assert len({len(body) for body in bodies}) == 1  # equal sizes
    assert len({body[-400:-200] for body in bodies}) == len(bodies)  # even of equal sound
    assert list(data["clips"]) == sorted(data["clips"])
    order = [test["key"]["clips"][one] for one in data["clips"]]
    assert order != sorted(order, key=str)
    assert all(trial["clips"] == sorted(trial["clips"]) for trial in data["trials"])


def test_listening_page_escapes_names(page):
    text = page[0].read_text("utf-8")
    assert HOSTILE[0] not in text
    assert "<bdi>&lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39;&amp;</bdi>" in text
    assert len(re.findall("<script", text)) == len(re.findall("</script>", text)) == 2
    assert not re.findall(r'(?:src|href|action)="', text) and "url(" not in text
    policy = re.search(r'content="(default-src[^"]*)"', text)[1]
    assert "'unsafe-inline'" not in policy.split("style-src")[0] and "connect" not in policy


def test_listening_page_is_deterministic_and_depends_on_the_seed(page, clips, tmp_path):
    options = {"title": HOSTILE[0], "seconds": 0.9}
    again = [
        listening.write_listening_page(
            tmp_path / "again.html",
            *clips,
            ("mushra", "abx"),
            page[2]["matched"],
            seed=seed,
            **options,
        )
        for seed in (5, 4)
    ]
    assert (tmp_path / "again.html").read_bytes() == page[0].read_bytes()
    assert again[0]["test"] != again[1]["test"] == page[1]["test"]


@pytest.mark.parametrize("rate", [8000, 22050, 44100])
def test_low_pass_has_the_response_of_the_recommendation(rate):
    edge = min(3500, rate / 4)
    pulse = np.zeros((2, rate))
    pulse[:, rate // 2] = 1
    hertz, response = scipy.signal.freqz(listening.low_pass(pulse, rate)[1], worN=rate, fs=rate)
    decibels = 20 * np.log10(np.abs(response) + 1e-12)
    assert np.abs(decibels[hertz <= edge]).max() < 0.1
    assert decibels[hertz >= edge * 8 / 7].max() < -50


def test_read_waves_converts_rates_and_channels(tmp_path):
    sets = write_clips(tmp_path, "ab", count=1)
    wave = synth.chords([220, 330, 440], 0.5, 2 * RATE)
    files.write(sets["b"][0], np.stack([wave, wave]), 2 * RATE)
    test = listening.read_listening_page(
        listening.write_listening_page(tmp_path / "page.html", sets, kinds=("abx",))["path"]
    )
    assert test["rate"] == 2 * RATE and test["channels"] == 1
    assert {pcm.shape for pcm in test["clips"].values()} == {(1, 2 * RATE)}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda sets, path: sets.pop("a"), "two or more sets"),
        (lambda sets, path: sets["a"].pop(), "equally many clips"),
        (lambda sets, path: path.write_bytes(b"RIFF"), "0_0.wav: not readable as sound"),
        (lambda sets, path: path.unlink(), "0_0.wav: not readable as sound"),
        (
            lambda sets, path: files.write(path, np.ones(800) / 2, RATE),
            "0_0.wav: 0.05 s are too short",
        ),
        (
            lambda sets, path: soundfile.write(path, np.full(RATE, np.nan), RATE, "FLOAT"),
            "not numbers",
        ),
        (
            lambda sets, path: files.write(path, np.eye(1, RATE, RATE // 2)[0], RATE),
            "0_0.wav: peaks",
        ),
    ],
)
def test_unusable_set_is_refused_and_nothing_is_written(tmp_path, change, complaint):
    sets = write_clips(tmp_path, "ab", count=2)
    change(sets, sets["a"][0])
    with pytest.raises(ValueError) as caught:
        listening.write_listening_page(tmp_path / "page.html", sets, kinds=("abx",))
    assert complaint in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "page.html").exists()


def test_listening_page_refuses_inconsistent_sets(clips, tmp_path):
    sets, reference = clips
    path = tmp_path / "page.html"
    with pytest.raises(ValueError, match="3 real references, not 1"):
        listening.write_listening_page(path, sets, reference[:1])
    with pytest.raises(ValueError, match="kinds must be of"):
        listening.write_listening_page(path, sets, reference, ("rating",))
    with pytest.raises(ValueError, match="take fewer or shorter clips"):
        listening.write_listening_page(path, sets, reference, max_bytes=1000)
    with pytest.raises(ValueError, match="at most 7 sets"):
        listening.write_listening_page(path, {str(n): reference for n in range(8)}, reference)
    with pytest.raises(ValueError, match="not a page of a listening test"):
        path.write_text("<html></html>")
        listening.read_listening_page(path)


# ---- results


def result(session, scores=(), abx=(), **fields):
    """Return a result file's contents from scores [{name: score}] and abx [right], by trial."""
    trials = []
    for clip, trial in enumerate(scores):
        ratings = [
            {
                "role": name if name in ("reference", "anchor") else "set",
                "set": name,
                "score": score,
            }
            for name, score in trial.items()
        ]
        trials.append({"kind": "mushra", "clip": clip, "ratings": ratings})
    for clip, right in enumerate(abx):
        trial = {"kind": "abx", "clip": clip, "a": "q", "b": "p", "x": "p"}
        trials.append({**trial, "answer": "p" if right else "q"})
    head = {"format": listening_results.FORMAT, "test": "t", "session": session, "matched": True}
    return {**head, "listener": session, "sets": ["p", "q"], "trials": trials, **fields}


@pytest.fixture
def saved(tmp_path):
    def save(*results):
        paths = [tmp_path / f"{number}.json" for number, _ in enumerate(results)]
        for path, one in zip(paths, results, strict=True):
            path.write_text(json.dumps(one))
        return paths

    return save


def simulated(rng, p, q, reference=100, clips=10, listener=0.0):
    noise = lambda: float(np.clip(rng.normal(listener, 4), -20, 20))
    return [
        {"p": p + noise(), "q": q + noise(), "reference": reference, "anchor": 20 + noise() / 2}
        for _ in range(clips)
    ]


def test_score_rows_of_simulated_listeners_have_their_means_and_intervals(saved):
    rng = np.random.default_rng(0)
    biases = rng.normal(0, 5, 8)
    results = [result(f"l{i}", simulated(rng, 70, 50, listener=b)) for i, b in enumerate(biases)]
    analysis = listening_results.analyze_results(saved(*results))
    rows = {row["name"]: row for row in analysis["scores"]}
    assert [*rows] == ["hidden reference", "p", "q", "hidden anchor"]
    for name in "pq":
        exact = np.mean([[trial[name] for trial in simulated_scores(one)] for one in results])
        assert rows[name]["mean"] == pytest.approx(exact, abs=1e-9)
        assert rows[name]["low"] < {"p": 70, "q": 50}[name] < rows[name]["high"]
        assert rows[name]["listeners"] == 8 and rows[name]["trials"] == 80
        # Listeners differ by 5 points, so eighty scores count for little more than eight.
        width = rows[name]["high"] - rows[name]["low"]
        assert 0.6 * 3.92 * np.std(biases) / 8**0.5 < width < 1.5 * 3.92 * np.std(biases) / 8**0.5
    assert rows["hidden reference"]["mean"] == rows["hidden reference"]["low"] == 100
    gaps = {(row["a"], row["b"]): row for row in analysis["differences"]}
    assert len(gaps) == 6
    gap = gaps["p", "q"]
    assert gap["mean"] == pytest.approx(rows["p"]["mean"] - rows["q"]["mean"], abs=1e-9)
    # A listener's bias is in all scores, so it cancels in a difference.
    assert gap["high"] - gap["low"] < rows["p"]["high"] - rows["p"]["low"]
    assert 0 < gap["low"] < 20 < gap["high"]


def simulated_scores(one):
    return [{r["set"]: r["score"] for r in trial["ratings"]} for trial in one["trials"]]


def test_analyze_results_ignores_the_order_of_files(saved):
    rng = np.random.default_rng(1)
    paths = saved(*(result(f"l{i}", simulated(rng, 60, 55), abx=[1, 0, 1]) for i in range(3)))
    both = [listening_results.analyze_results(order) for order in (paths, paths[::-1])]
    assert (
        both[0]["scores"] == both[1]["scores"] and both[0]["differences"] == both[1]["differences"]
    )


def test_screening_excludes_only_listeners_who_miss_the_reference(saved):
    rng = np.random.default_rng(2)

    def with_missed(count):
        scores = simulated(rng, 60, 50, clips=20)
        for trial in scores[:count]:
            trial["reference"] = 89
        for trial in scores[count:]:
            trial["reference"] = 90
        return scores

    missed = {"none": 0, "three": 3, "four": 4, "<all>": 20}  # of 20: 15% are three
    paths = saved(*(result(name, with_missed(n), abx=[1] * 5) for name, n in missed.items()))
    analysis = listening_results.analyze_results(paths)
    rows = {row["listener"]: row for row in analysis["listeners"]}
    assert [name for name, row in rows.items() if row["excluded"]] == ["four", "<all>"]
    assert [row["below"] for row in rows.values()] == [*missed.values()]
    assert {row["listeners"] for row in analysis["scores"]} == {2}
    assert analysis["abx"][0]["trials"] == 20
    page = report.render_results(analysis)
    assert "four (4 of 20); &lt;all&gt; (20 of 20)" in page
    everyone = listening_results.analyze_results(paths, screen=False)
    assert {row["listeners"] for row in everyone["scores"]} == {4}
    alone = listening_results.analyze_results(paths[2:3])
    assert alone["scores"] == alone["differences"] == []
    assert "every listener is screened out" in report.render_results(alone)


def test_sessions_of_one_name_are_one_listener(saved):
    rng = np.random.default_rng(3)
    first = result("s1", simulated(rng, 60, 50), listener="Ann")
    second = result("s2", simulated(rng, 70, 50), listener=" Ann ")
    unnamed = [result(f"{n}" * 8, simulated(rng, 60, 50), listener="") for n in (3, 4)]
    row = listening_results.analyze_results(saved(first, second, *unnamed))["scores"][0]
    assert row["listeners"] == 3 and row["trials"] == 30


@pytest.mark.parametrize("trials", [1, 7, 40])
def test_binomial_interval_equals_the_exact_test(trials):
    for right in {0, 1, trials // 3, trials // 2 + 1, trials}:
        row = listening_results.binomial_interval(right, trials)
        test = scipy.stats.binomtest(right, trials, 0.5, alternative="greater")
        assert row["p"] == pytest.approx(test.pvalue, rel=1e-9)
        both = scipy.stats.binomtest(right, trials, 0.5).proportion_ci(0.95, "exact")
        assert (row["low"], row["high"]) == pytest.approx((both.low, both.high), abs=1e-9)


def test_abx_rows_count_right_answers_of_all_and_each(saved):
    paths = saved(result("ann", abx=[1, 1, 1, 0]), result("bob", abx=[0, 1]))
    analysis = listening_results.analyze_results(paths)
    rows = analysis["abx"]
    actual = [(row["listener"], row["right"], row["trials"]) for row in rows]
    assert actual == [(None, 4, 6), ("ann", 3, 4), ("bob", 1, 2)]
    assert {(row["a"], row["b"]) for row in rows} == {("p", "q")}  # in the order of the sets
    assert analysis["scores"] == [] and "screened" not in report.render_results(analysis)


def test_listening_results_escape_names(saved):
    rng = np.random.default_rng(5)
    hostile = '<img src=x onerror="alert(1)">\n\''
    scores = [{(hostile if k == "p" else k): v for k, v in t.items()} for t in simulated(rng, 9, 8)]
    one = result("s", scores, sets=[hostile, "q"], listener=hostile)
    one["trials"].append(
        {"kind": "abx", "clip": 0, "a": hostile, "b": "q", "x": "q", "answer": "q"}
    )
    page = report.render_results(listening_results.analyze_results(saved(one)))
    page = page.split("<main>")[1].split("</main>")[0]
    assert "<img" not in page and "&lt;img src=x onerror=&#34;alert(1)&#34;&gt;" in page
    tags = set(re.findall(r"</?([a-z]+)", page))
    assert tags == {"p", "div", "table", "thead", "tbody", "tr", "th", "td", "bdi"}


GOOD = {"p": 50, "q": 50, "reference": 100, "anchor": 10}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"{", "Expecting"),
        (b"[1]", "expected a JSON object"),
        (b"\xff\xfe", "0.json"),
        ({"metrics": 3}, "not a result of a listening test"),
        (result("s"), "holds no trials"),
        (result("s", [GOOD], sets=["p"]), "no rating"),
        (result("s", [{**GOOD, "p": 101}]), "no rating"),
        (result("s", [{**GOOD, "p": float("nan")}]), "no rating"),
        (result("s", [{"p": 1, "q": 2}]), "2 of 4 ratings"),
        (result("s", abx=[1], sets=["q", "r"]), "do not fit together"),
        ({k: v for k, v in result("s", abx=[1]).items() if k != "session"}, "'session' is missing"),
        (result("s", trials=[3]), "0.json"),
    ],
)
def test_malformed_result_is_refused_with_the_remedy(tmp_path, content, complaint):
    path = tmp_path / "0.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(ValueError) as caught:
        listening_results.analyze_results([path])
    line = str(caught.value)
    assert line.startswith(str(path)) and complaint in line and "\n" not in line
    assert "save it again from the last screen" in line


def test_results_of_different_tests_are_refused(saved, tmp_path):
    one = result("s", abx=[1])
    with pytest.raises(ValueError, match=r"1\.json: the same session as .*0\.json; keep one"):
        listening_results.analyze_results(saved(one, one))
    with pytest.raises(ValueError, match=r"1\.json: of another listening.html than .*0\.json"):
        listening_results.analyze_results(saved(one, {**one, "session": "r", "test": "u"}))
    with pytest.raises(ValueError, match="nowhere.json: No such file"):
        listening_results.analyze_results([tmp_path / "nowhere.json"])
    with pytest.raises(ValueError, match="no result files"):
        listening_results.analyze_results([])
