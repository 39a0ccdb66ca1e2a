// Steers by a TrackState and asks for a target, without a node: the types, their text and their type support.
#include <cstdio>
#include <string>

#include "cract_ros/msg/track_state.hpp"
#include "cract_ros/srv/init_target.hpp"
#include "rosidl_typesupport_cpp/message_type_support.hpp"
#include "rosidl_typesupport_cpp/service_type_support.hpp"

using cract_ros::msg::TrackState;
using cract_ros::srv::InitTarget;

// Yaw rate in rad/s that turns the camera towards the target; 0 where there is none to steer by.
double yaw_rate(const TrackState & state)
{
  const bool followed = state.state == TrackState::TRACKING || state.state == TrackState::UNCERTAIN;
  return followed ? -0.8 * state.error_x : 0.0;
}

int main()
{
  TrackState state;
  state.id = "car";
  state.state = TrackState::TRACKING;
  state.error_x = 0.5F;
  std::printf("tracking %.2f\n", yaw_rate(state));
  state.state = TrackState::LOST;
  std::printf("lost %.2f\n", yaw_rate(state));

  InitTarget::Request request;
  request.bbox.center.position.x = 344.0;
  request.bbox.size_x = 64.0;
  request.id = state.id;
  std::printf("%s\n", cract_ros::srv::to_yaml(request, true).c_str());

  const auto * message = rosidl_typesupport_cpp::get_message_type_support_handle<TrackState>();
  const auto * service = rosidl_typesupport_cpp::get_service_type_support_handle<InitTarget>();
  if (message == nullptr || service == nullptr) {
    return 1;
  }
  std::printf("%s %s\n", rosidl_generator_traits::name<TrackState>(), message->typesupport_identifier);
  return 0;
}
