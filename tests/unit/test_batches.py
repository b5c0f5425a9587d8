"""How many hosts at a time: text of a survey, a command line or an inventory."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.beta9.workers.plugins.filter.batches import batches


@pytest.mark.parametrize(
    "given, expected",
    [
        ("100%", ["100%"]),
        (5, [5]),
        ("5", [5]),
        ("1,10%,100%", [1, "10%", "100%"]),
        (" 1 , 25% ", [1, "25%"]),
        ([1, "25%", "100%"], [1, "25%", "100%"]),
    ],
)
def test_what_is_taken(given, expected):
    assert batches(given) == expected


@pytest.mark.parametrize("given", ["foo", "", "0", "101%", "0%", "1,", "-1", "1.5", True, [True], None, {}])
def test_what_is_refused(given):
    with pytest.raises(AnsibleFilterError, match="beta9_serial: expected a number of hosts, a percentage, or a list of them"):
        batches(given)
