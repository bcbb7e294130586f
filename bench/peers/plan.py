"""The largest number of packages that can be carried, by scipy's maximum flow on the explicit graph: source, drivers,
packages, sink.

Usage: plan.py MANIFEST MAX_PER_DRIVER

Writes its figures as a JSON object: how many that are, what it took, and how many the drivers would carry in list order,
each taking the first packages that fit. Reading the manifest is not timed, and ends with what a graph is built from:
columns of numbers, one per attribute. The dictionaries are gone by then.
"""

import gc
import json
import sys
import time

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow

REGIONS = {"north": 1, "east": 2, "south": 3, "west": 4}
NO_CLASS = 0


def memory(name):
    """VmRSS, what is resident, or VmHWM, the most that ever was, in bytes."""
    with open("/proc/self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith(name + ":"))
    return int(line.split()[1]) * 1024


def read(path):
    with open(path, "rb") as file:
        manifest = json.load(file)
    packages = manifest["packages"]

    def column(name, kind):
        return np.fromiter((package[name] for package in packages), kind, len(packages))

    columns = {
        name: column(name, np.float64) for name in ("weight_kg", "distance_km", "temperature_c", "volume_m3")
    } | {name: column(name, np.bool_) for name in ("is_perishable", "is_express", "is_fragile")}
    columns["delivery_hour"] = column("delivery_hour", np.int8)
    columns["region"] = np.fromiter((REGIONS[package["region"]] for package in packages), np.int8, len(packages))
    classes = (package["hazmat_class"] or NO_CLASS for package in packages)
    columns["hazmat_class"] = np.fromiter(classes, np.int8, len(packages))
    rules = [[(rule["code"], rule["params"]) for rule in driver["rules"]] for driver in manifest["drivers"]]
    return len(packages), columns, rules


def passing(columns, code, params):
    """By package, whether it passes the rule."""
    match code:
        case "MAX_WEIGHT":
            return columns["weight_kg"] <= params["limit_kg"]
        case "NO_PERISHABLE":
            return ~columns["is_perishable"]
        case "REGION_ONLY":
            return np.isin(columns["region"], [REGIONS[region] for region in params["allowed_regions"]])
        case "MAX_DISTANCE":
            return columns["distance_km"] <= params["max_km"]
        case "EXPRESS_ONLY":
            return columns["is_express"]
        case "FRAGILE_ONLY":
            return columns["is_fragile"]
        case "HAZMAT_ALLOWED":
            return np.isin(columns["hazmat_class"], [NO_CLASS, *params["allowed_classes"]])
        case "TEMP_CONTROL":
            temperature = columns["temperature_c"]
            return (temperature >= params["min_c"]) & (temperature <= params["max_c"])
        case "TIME_WINDOW":
            hour = columns["delivery_hour"]
            return (hour >= params["start_hour"]) & (hour <= params["end_hour"])
        case "OVERSIZED":
            return columns["volume_m3"] >= params["min_volume_m3"]
    sys.exit(f"no such rule: {code}")


def fitting(packages, columns, rules):
    """By driver, the packages that pass all of their rules, ascending. A rule is looked at once, whoever has it."""
    known = {}
    for own in rules:
        fit = np.ones(packages, np.bool_)
        for code, params in own:
            said = code, repr(params)
            if said not in known:
                known[said] = passing(columns, code, params)
            fit &= known[said]
        yield np.flatnonzero(fit).astype(np.int32)


def graph(packages, columns, rules, most):
    """Vertices: the source, drivers, packages, the sink. The rows of the matrix are written one after the other, so nothing
    has to be sorted or converted afterwards."""
    drivers = len(rules)
    sink = drivers + packages + 1
    rows = [fit + np.int32(drivers + 1) for fit in fitting(packages, columns, rules)]
    degrees = np.concatenate([[drivers], [len(row) for row in rows], np.ones(packages, np.int32), [0]])
    starts = np.concatenate([[0], np.cumsum(degrees)]).astype(np.int32)
    ends = np.concatenate([np.arange(1, drivers + 1, dtype=np.int32), *rows, np.full(packages, sink, np.int32)])
    del rows
    capacities = np.ones(len(ends), np.int32)
    capacities[:drivers] = most
    return csr_array((capacities, ends, starts), shape=(sink + 1, sink + 1)), sink


def greedy(packages, columns, rules, most):
    left = np.ones(packages, np.bool_)
    for fit in fitting(packages, columns, rules):
        left[fit[left[fit]][:most]] = False
    return packages - int(left.sum())


def main():
    path, most = sys.argv[1:]
    day = *read(path), int(most)
    gc.collect()
    resident = memory("VmRSS")
    begin = time.perf_counter()
    matrix, sink = graph(*day)
    carried = maximum_flow(matrix, 0, sink, method="dinic").flow_value
    end = time.perf_counter()
    peak = memory("VmHWM")
    figures = {
        "carried": int(carried),
        "seconds": end - begin,
        "peak_bytes": peak,
        "growth_bytes": peak - resident,
        "edges": int(matrix.nnz),
        "first_fit": greedy(*day),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
