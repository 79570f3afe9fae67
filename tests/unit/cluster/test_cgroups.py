"""The layout of control groups, on file trees that look like the two kinds of machine."""

from pathlib import Path

import pytest

from tests.cluster.cgroups import Cgroups

V1 = ("cpu", "cpuset", "memory", "pids")


@pytest.fixture
def v1(tmp_path: Path) -> Cgroups:
    for controller in V1:
        (tmp_path / controller).mkdir()
        (tmp_path / controller / "tasks").touch()
    (tmp_path / "unified").mkdir()  # mounted on hybrid machines, without controllers
    (tmp_path / "cpuset" / "cpuset.cpus").write_text("0-1\n")
    (tmp_path / "cpuset" / "cpuset.mems").write_text("0\n")
    return Cgroups(tmp_path)


@pytest.fixture
def v2(tmp_path: Path) -> Cgroups:
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory hugetlb pids\n")
    return Cgroups(tmp_path)


def test_v1_has_every_group_in_every_controller(v1: Cgroups) -> None:
    v1.create("node-0/system")
    assert not v1.unified
    assert all((v1.mount / controller / "falcon-finetune/node-0/system").is_dir() for controller in V1)
    assert not (v1.mount / "unified/falcon-finetune").exists()


def test_v1_records_programs_in_one_hierarchy(v1: Cgroups) -> None:
    assert v1.recorder("control-plane") == v1.mount / "pids/falcon-finetune/control-plane/cgroup.procs"


def test_v2_has_one_tree(v2: Cgroups) -> None:
    assert v2.unified
    assert v2.hierarchies() == [v2.mount]
    assert v2.recorder("control-plane") == v2.mount / "falcon-finetune/control-plane/cgroup.procs"


@pytest.mark.parametrize("machine", ["v1", "v2"])
def test_processes_of_a_group_are_those_of_its_children_too(machine: str, request: pytest.FixtureRequest) -> None:
    cgroups: Cgroups = request.getfixturevalue(machine)
    hierarchy = cgroups.hierarchies()[-1]
    for group, pids in {"node-0/system": "12\n13\n", "node-0/kubepods/pod1": "14\n", "control-plane": "15\n"}.items():
        folder = hierarchy / "falcon-finetune" / group
        folder.mkdir(parents=True)
        (folder / "cgroup.procs").write_text(pids)
    assert cgroups.processes("node-0") == {12, 13, 14}
    assert cgroups.processes() == {12, 13, 14, 15}
    assert cgroups.processes("node-1") == set()


def test_a_stranger_s_group_is_never_looked_at(v2: Cgroups) -> None:
    stranger = v2.mount / "system.slice"
    stranger.mkdir()
    (stranger / "cgroup.procs").write_text("1\n")
    assert v2.processes() == set()


def test_what_a_container_runtime_makes_in_the_v2_tree_of_a_v1_machine_is_removed_too(v1: Cgroups) -> None:
    left = v1.mount / "unified/falcon-finetune/node-0/kubepods"
    left.mkdir(parents=True)
    v1.create("node-0")
    v1.remove()
    assert not (v1.mount / "unified/falcon-finetune").exists()
    assert not (v1.mount / "memory/falcon-finetune").exists()
