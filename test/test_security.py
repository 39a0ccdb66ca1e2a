"""The SROS 2 policy against what the nodes really have in the ROS graph."""
from __future__ import annotations

from collections import defaultdict
from xml.etree import ElementTree

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from conftest import ROOT
from node_harness import launch_tracker, peer, weights  # noqa: F401  (fixtures)

# by a parameter of the node; where foxglove_msgs is installed
ON_REQUEST = {('subscribe', '/image/compressed'), ('subscribe', '/clock'), ('publish', '/tracker/annotations'), ('publish', '/tf')}


def allowed(node: str) -> set[tuple[str, str]]:
    """(what, full name) of each rule for a node."""
    rules = set()
    profile, = ElementTree.parse(ROOT / 'config/sros2_policy.xml').findall(f'.//profile[@node="{node}"]')
    for expressions in profile:
        for what, qualifier in expressions.attrib.items():
            assert qualifier == 'ALLOW'
            for one in expressions:
                name = one.text.replace('~', f'/{node}')
                rules.add((what, name if name.startswith('/') else f'/{name}'))
    return rules


def in_graph(peer, node: str) -> set[tuple[str, str]]:
    ask = {'publish': peer.get_publisher_names_and_types_by_node, 'request': peer.get_client_names_and_types_by_node,
           'subscribe': peer.get_subscriber_names_and_types_by_node, 'reply': peer.get_service_names_and_types_by_node}
    return {(what, name) for what, names in ask.items() for name, _ in names(node, '/')}


def test_the_policy_allows_what_the_tracker_has_and_nothing_else(launch_tracker, peer):
    launch_tracker()
    peer.wait(lambda: peer.state() == 'active', 'the active state')
    peer.wait(lambda: allowed('tracker') - ON_REQUEST <= in_graph(peer, 'tracker'), 'all that the policy allows')
    assert in_graph(peer, 'tracker') <= allowed('tracker')


def test_the_policy_allows_what_the_page_has_and_nothing_else(peer):
    from rclpy.parameter import Parameter

    from cract_ros.selector import Selector
    node = Selector(parameter_overrides=[Parameter('port', value=0)])
    try:
        node.look()
        node._watch()
        peer.wait(lambda: allowed('select') - ON_REQUEST <= in_graph(peer, 'select'), 'all that the policy allows')
        assert in_graph(peer, 'select') <= allowed('select')
    finally:
        node.destroy_node()


def test_the_policy_has_the_form_that_sros2_takes():
    root = ElementTree.parse(ROOT / 'config/sros2_policy.xml').getroot()
    assert (root.tag, root.get('version')) == ('policy', '0.2.0')
    inside = defaultdict(set)
    for parent in root.iter():
        for child in parent:
            inside[parent.tag].add(child.tag)
    assert inside == {'policy': {'enclaves'}, 'enclaves': {'enclave'}, 'enclave': {'profiles'}, 'profiles': {'profile'},
                      'profile': {'topics', 'services'}, 'topics': {'topic'}, 'services': {'service'}}
