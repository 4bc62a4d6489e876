"""The tables of README.md, docs/ and both REPORTs, made from records: see make_report.py.

A table is a function of the records, named as in the text (with _ for -), that returns rows of
cells, the header first. zh.TRANSLATED holds the cells of the Chinese text.
"""

import label_tables
import run_tables
from cells import bench, text
from timing import markdown
from zh import TRANSLATED

import infer
import train
import visualize


def make(name, records, language):
    """Markdown of one table; KeyError for one that there is not."""
    rows = TABLES[name](records)
    if language == "zh":
        rows = [[TRANSLATED.get(cell, cell) for cell in row] for row in rows]
    return markdown(rows)


def against(name):
    """A table of benchmarks/ssim.py or sliding_window.py: ours in ms, the peers' times over it."""
    def rows(records):
        found = bench(name)
        peers = [p for p in next(iter(found.values())) if p != "ours"]
        return [["", "ours", *peers]] + [
            [case, f"{r['ours']['seconds'] * 1e3:.3g} ms",
             *(f"{r[p]['ratio']:.2f} x" for p in peers)] for case, r in found.items()]
    return rows


def growth(records):
    """What a memory's fit costs as its images become more."""
    found = bench("memory_growth")
    return [["fit", "images", "CPU", "an image to score", "peak memory"]] + [
        [case.removeprefix("fit, "), count, f"{r['seconds']:.0f} s",
         f"{r['seconds_to_score'] * 1e3:.0f} ms", f"{r['mib']:,.0f} MiB" if "mib" in r else "-"]
        for case, rows in found.items() if case != "search" for count, r in rows.items()]


def nearest_search(records):
    return [["nearest of 19,456 patches for 16,384", "time", "times ours"]] + [
        [name, f"{r['seconds']:.2f} s", f"{r['ratio']:.2f}"]
        for name, r in bench("memory_growth")["search"].items()]


def collapse(records):
    """The four numbers of visualize.py for the runs whose pictures are shown."""
    found = records["collapse"]
    return [["", *next(iter(found.values()))]] + [
        [f"`{name}`", *numbers.values()] for name, numbers in found.items()]


def survive(records):
    return [["tried", "how often", "what held"]] + [[what, str(count), held] for what, count, held
                                                    in bench("survive")]


def router(records):
    group, route = (bench("router")[k]["ours"] for k in ("group", "route"))
    return [["", "time", "found", "right"],
            ["grouping", f"{group['seconds']:.0f} s", f"{group['groups']} groups",
             text(group["purity"])],
            ["routing", f"{route['seconds']:.0f} s", f"{route['peak_gib']:.2f} GiB at most",
             text(route["right"])]]


def train_step(records):
    rows = next(iter(bench("train_step").values()))  # the others: in other precisions
    alone = rows["network alone"]
    peak = max(v for k, v in alone.items() if k.endswith("_gemm_gflop_per_s"))
    return [["", "images/s", "of ours"]] + [
        [name, text(r["images_per_s"], 1), f"{1 / r['ratio']:.2f} x"] for name, r in rows.items()
    ] + [[f"GFLOP/s: network alone, ours; matrix products at best {peak:.0f}",
          f"{alone['gflop_per_s']:.0f}, {rows['ours']['gflop_per_s']:.0f}", ""]]


def inference(records):
    found = bench("inference")
    sides = next(v for k, v in found.items() if k == "one scale")
    rows = [["images/s (peak MiB)", *sides]]
    for kind in ("one scale", "three scales", "three members"):
        rows.append([kind, *(f"{1 / r['seconds']:.2f} ({r['peak_mib']:.0f})"
                             for r in found[kind].values())])
    return rows


def many_images(records):
    found = bench("inference")["many images"]
    return [["", *found], ["peak MiB", *(text(r["peak_mib"], 0) for r in found.values())],
            ["images/s", *(text(1 / r["seconds"], 0) for r in found.values())]]


def options(script):
    """A table of every option of a script, as argparse knows it."""
    def rows(records):
        rows = [["option", "what it does"]]
        for action in script.build_parser()._actions:
            if action.option_strings and action.dest not in ("help", "help_all"):
                value = "" if action.nargs == 0 else " " + str(
                    action.metavar or "{" + ",".join(map(str, action.choices or ())) + "}")
                value = "" if value == " {}" else value
                rows.append([f"`{action.option_strings[0]}{value}`",
                             action.help.replace("|", "\\|").replace("<", "&lt;")])
        return rows
    return rows


TABLES = {f.__name__.replace("_", "-"): f for f in (
    growth, nearest_search, collapse, survive, router, train_step, inference, many_images,
    run_tables.published, run_tables.normals, run_tables.quality, run_tables.quality_all,
    label_tables.wells, label_tables.encoders, label_tables.merged, label_tables.classes,
    label_tables.classes_demo, label_tables.labels, label_tables.f1_and_auc)} | {
    "ssim": against("ssim"), "sliding-window": against("sliding_window"),
    "options-train": options(train), "options-infer": options(infer),
    "options-visualize": options(visualize)}
