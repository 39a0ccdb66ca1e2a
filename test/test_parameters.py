"""The ROS parameters are those of the one table."""
from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

import rclpy
from rclpy.node import Node
from rclpy.parameter import Parameter, parameter_dict_from_yaml_file

from cract_core.config import TrackerConfig, field_type
from cract_ros import parameters

ROOT = Path(__file__).resolve().parent.parent
FIELDS = dataclasses.fields(TrackerConfig) + dataclasses.fields(parameters.NodeConfig)
CHOICE = next(field for field in FIELDS if field.metadata['choices'])


@pytest.fixture
def make_node():
    context = rclpy.Context()
    rclpy.init(context=context)
    nodes = []

    def make(**overrides) -> Node:
        nodes.append(Node('made', context=context, parameter_overrides=[
            Parameter(name, value=value) for name, value in overrides.items()]))
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()
    context.try_shutdown()


def test_every_field_is_a_parameter_with_its_default(make_node):
    node = make_node()
    assert parameters.declare(node) == {}
    assert parameters.read_tracker(node) == TrackerConfig()
    assert parameters.read_node(node) == parameters.NodeConfig()
    for field in FIELDS:
        assert type(node.get_parameter(field.name).value) is field_type(field)


@pytest.mark.parametrize('field', FIELDS, ids=lambda field: field.name)
def test_the_descriptor_says_what_the_table_says(make_node, field):
    node = make_node()
    parameters.declare(node)
    described = node.describe_parameter(field.name)
    assert field.metadata['text'] in described.description and field.metadata['unit'] in described.description
    assert described.read_only is not field.metadata['live']
    assert all(choice in described.additional_constraints for choice in field.metadata['choices'])
    ranges = described.floating_point_range if field_type(field) is float else described.integer_range
    assert [(r.from_value, r.to_value) for r in ranges] == (
        [] if field.metadata['minimum'] is None else [(field.metadata['minimum'], field.metadata['maximum'])])


def test_given_values_are_read(make_node):
    node = make_node(alpha=0.25, num_proposals=3, device='cpu')
    assert parameters.declare(node) == {}
    assert parameters.read_tracker(node) == TrackerConfig(alpha=0.25, num_proposals=3, device='cpu')


@pytest.mark.parametrize('name, value, reason', [
    ('alpha', 3.0, 'out of range'), ('alpha', 1, 'alpha must be of type float, written with a decimal point'),
    ('update_interval', 0, 'out of range'), ('update_interval', 2.5, 'must be of type int'), ('weights', 7, 'type str')])
def test_a_wrong_start_value_is_reported_by_name_and_the_default_stands(make_node, name, value, reason):
    node = make_node(**{name: value})
    refused = parameters.declare(node)
    assert list(refused) == [name] and name in refused[name] and reason in refused[name]
    assert parameters.read_tracker(node) == TrackerConfig()


@pytest.mark.parametrize('changes, reason', [
    (dict(image_transport='theora'), 'image_transport must be one of raw, compressed'),
    (dict(catch_up=float('nan')), 'catch_up must be finite'), (dict(history_frames=0), 'history_frames must be between')])
def test_a_wrong_value_of_the_node_is_named(make_node, changes, reason):
    node = make_node()
    parameters.declare(node)
    with pytest.raises(ValueError, match=reason):
        parameters.read_node(node, **changes)


def test_choices_and_combinations_are_checked_when_read(make_node):
    node = make_node(**{CHOICE.name: 'abacus'})
    parameters.declare(node)
    with pytest.raises(ValueError, match=f'{CHOICE.name} must be one of .*abacus'):
        parameters.read_tracker(node)
    node = make_node(lost_score=0.9, uncertain_score=0.1)
    parameters.declare(node)
    with pytest.raises(ValueError, match='lost_score must not exceed uncertain_score'):
        parameters.read_tracker(node)


def test_changes_are_told_apart_by_their_table():
    given = [Parameter('alpha', value=0.1), Parameter('use_sim_time', value=True), Parameter('catch_up', value=1.0)]
    assert parameters.changes(given, parameters.TRACKER_FIELDS) == {'alpha': 0.1}
    assert parameters.changes(given, parameters.NODE_FIELDS) == {'catch_up': 1.0}


def test_the_settings_file_names_only_known_parameters():
    settings = yaml.safe_load((ROOT / 'config' / 'tracker.yaml').read_text())
    assert list(settings) == ['/**']
    values = settings['/**']['ros__parameters']
    TrackerConfig.from_mapping({name: value for name, value in values.items() if name not in parameters.NODE_FIELDS})
    parameters.NodeConfig(**{name: value for name, value in values.items() if name in parameters.NODE_FIELDS})


@pytest.mark.parametrize('name', ['/tracker', '/drone/target_1/tracker'])
def test_the_settings_file_can_be_loaded_into_a_running_node(name):
    """What `ros2 param load NAME FILE` makes of it, in every namespace."""
    path = ROOT / 'config' / 'tracker.yaml'
    loaded = parameter_dict_from_yaml_file(str(path), True, target_nodes=[name])
    assert set(loaded) == set(yaml.safe_load(path.read_text())['/**']['ros__parameters'])


def test_the_rviz_file_shows_overlay_and_markers():
    rviz = yaml.safe_load((ROOT / 'config' / 'tracker.rviz').read_text())
    displays = rviz['Visualization Manager']['Displays']
    assert [(d['Class'], d['Topic']['Value']) for d in displays] == [
        ('rviz_default_plugins/Image', '/tracker/overlay'), ('rviz_default_plugins/MarkerArray', '/tracker/markers')]
