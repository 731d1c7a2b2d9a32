import pytest


@pytest.fixture
def write(tmp_path):
    def write(data, name="log_0000.mcap"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write
