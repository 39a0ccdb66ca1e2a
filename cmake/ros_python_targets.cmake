# rosidl lets the <package>__rosidl_generator_py targets export the include directories of the NumPy that they were built
# with. Two things follow, and this file puts both right: packages that came as wheels name directories of the machine
# that the wheels were built on (dropped here; there are none with ROS from apt or from source), and our own package would
# export a directory of the virtual environment, which CMake refuses when that lies inside the source tree.
function(_ros_python_targets)
  get_directory_property(imported IMPORTED_TARGETS)
  list(FILTER imported INCLUDE REGEX "__rosidl_generator_py$")
  foreach(target IN LISTS imported)
    get_target_property(directories ${target} INTERFACE_INCLUDE_DIRECTORIES)
    set(kept "")
    foreach(directory IN LISTS directories)
      if(EXISTS "${directory}")
        list(APPEND kept "${directory}")
      endif()
    endforeach()
    set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${kept}")
  endforeach()

  set(own ${PROJECT_NAME}__rosidl_generator_py)
  get_target_property(directories ${own} INTERFACE_INCLUDE_DIRECTORIES)
  list(TRANSFORM directories REPLACE "^/.*$" "$<BUILD_INTERFACE:\\0>")
  set_target_properties(${own} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${directories}")
endfunction()
cmake_language(DEFER CALL _ros_python_targets)
