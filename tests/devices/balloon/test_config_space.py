import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.balloon.config_space import ConfigSpace
from devices.virtio.errors import DriverError

DRIVERS = {*range(4, 8), *range(12, 16)}  # Bytes of `actual` and `poison_val`.


def test_fields_are_little_endian_and_in_their_places() -> None:
    config = ConfigSpace()
    config.put("num_pages", 0x01020304)
    config.put("free_page_hint_cmd_id", 0x80000000)
    config.write(4, b"\x05\0\0\0")
    assert config.read(0, 16) == bytes.fromhex("04030201 05000000 00000080 00000000")
    assert config.words[0]["actual"] == 5
    assert config.read(6, 4) == b"\0\0\0\0"


def test_the_driver_is_told_of_what_the_device_changes_and_of_nothing_else() -> None:
    told = []
    config = ConfigSpace(changed=lambda: told.append(int(config.words[0]["num_pages"])))
    config.put("num_pages", 7)
    config.write(4, bytes(4))
    config.reset()
    assert told == [7]


@given(st.integers(0, 16), st.binary(max_size=16))
def test_the_driver_writes_only_its_own_fields(offset: int, data: bytes) -> None:
    config = ConfigSpace()
    before = bytes(range(1, 17))
    for index, name in enumerate(("num_pages", "actual", "free_page_hint_cmd_id", "poison_val")):
        config.words[0][name] = int.from_bytes(before[4 * index : 4 * index + 4], "little")
    if offset + len(data) > 16:
        with pytest.raises(DriverError, match="of the configuration, which has 16"):
            config.write(offset, data)
        return
    config.write(offset, data)
    places = range(offset, offset + len(data))
    expected = bytearray(before)
    for place in DRIVERS & set(places):
        expected[place] = data[place - offset]
    assert config.read(0, 16) == expected
    assert config.ignored_bytes == len(set(places) - DRIVERS)


@pytest.mark.parametrize(("offset", "length"), [(0, 17), (16, 1), (-1, 1), (1 << 40, 1), (0, -1)])
def test_nothing_outside_is_read(offset: int, length: int) -> None:
    with pytest.raises(DriverError, match="configuration"):
        ConfigSpace().read(offset, length)
