"""The seed's assignment as it would be written first: drivers in the order of their list, each takes the first packages
that fit. A manifest as JSON has it, rules as dictionaries, no library.

Usage: greedy.py MANIFEST MAX_PER_DRIVER DIRECTORY

Answers each line on standard input with one line of JSON: how many packages were assigned, and the seconds each way took.
"""

import json
import os
import sqlite3
import sys
import time

RULES = {
    "MAX_WEIGHT": lambda package, params: package["weight_kg"] <= params["limit_kg"],
    "NO_PERISHABLE": lambda package, params: not package["is_perishable"],
    "REGION_ONLY": lambda package, params: package["region"] in params["allowed_regions"],
    "MAX_DISTANCE": lambda package, params: package["distance_km"] <= params["max_km"],
    "EXPRESS_ONLY": lambda package, params: package["is_express"],
    "FRAGILE_ONLY": lambda package, params: package["is_fragile"],
    "HAZMAT_ALLOWED": lambda package, params: package["hazmat_class"] is None
    or package["hazmat_class"] in params["allowed_classes"],
    "TEMP_CONTROL": lambda package, params: params["min_c"] <= package["temperature_c"] <= params["max_c"],
    "TIME_WINDOW": lambda package, params: params["start_hour"] <= package["delivery_hour"] <= params["end_hour"],
    "OVERSIZED": lambda package, params: package["volume_m3"] >= params["min_volume_m3"],
}


def may_carry(driver, package):
    return all(RULES[rule["code"]](package, rule["params"]) for rule in driver["rules"])


def assign(drivers, packages, max_per_driver):
    """Each driver looks at what is left until their hands are full."""
    assigned = set()
    assignments = {}
    for driver in drivers:
        hand = []
        for package in packages:
            if len(hand) == max_per_driver:
                break
            if package["package_id"] not in assigned and may_carry(driver, package):
                hand.append(package["package_id"])
                assigned.add(package["package_id"])
        assignments[driver["driver_id"]] = hand
    return {
        "assignments": assignments,
        "unassigned_packages": [package["package_id"] for package in packages if package["package_id"] not in assigned],
        "unassigned_drivers": [driver for driver, hand in assignments.items() if not hand],
    }


def assign_filtering(drivers, packages, max_per_driver):
    """The seed's words: packages are filtered by each driver's rules, then up to `max_per_driver` of them are given."""
    left = list(packages)
    assignments = {}
    for driver in drivers:
        fitting = [package for package in left if may_carry(driver, package)]
        hand = {package["package_id"] for package in fitting[:max_per_driver]}
        left = [package for package in left if package["package_id"] not in hand]
        assignments[driver["driver_id"]] = [package["package_id"] for package in fitting[:max_per_driver]]
    return {
        "assignments": assignments,
        "unassigned_packages": [package["package_id"] for package in left],
        "unassigned_drivers": [driver for driver, hand in assignments.items() if not hand],
    }


def open_database(directory):
    """As durable as the measured server's: a write-ahead log that is flushed at each commit."""
    database = sqlite3.connect(os.path.join(directory, "greedy.db"), isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute(
        "CREATE TABLE assignments (date INTEGER, driver_id TEXT, package_id TEXT, status TEXT,"
        " PRIMARY KEY (date, driver_id, package_id)) WITHOUT ROWID"
    )
    return database


def keep(database, date, assignments):
    rows = [(date, driver, package, "assigned") for driver, hand in assignments.items() for package in hand]
    database.execute("BEGIN IMMEDIATE")
    database.executemany("INSERT INTO assignments VALUES (?, ?, ?, ?)", rows)
    database.execute("COMMIT")


def timed(function, *arguments):
    begin = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - begin


def main():
    manifest, max_per_driver, directory = sys.argv[1:]
    with open(manifest, "rb") as file:
        manifest = json.load(file)
    day = manifest["drivers"], manifest["packages"], int(max_per_driver)
    database = open_database(directory)
    for date, _ in enumerate(sys.stdin):
        found, seconds = timed(assign, *day)
        also, filtering = timed(assign_filtering, *day)
        if also != found:
            sys.exit("both ways must give the same")
        _, keeping = timed(keep, database, date, found["assignments"])
        answer = {
            "assigned": sum(map(len, found["assignments"].values())),
            "seconds": seconds,
            "filtering_seconds": filtering,
            "keeping_seconds": keeping,
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
