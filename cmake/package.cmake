# The library that users link, and its CMake package: find_package(inrush), inrush::inrush.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

if(INRUSH_SHARED)
  add_library(inrush SHARED ${objects})
  set(map ${CMAKE_CURRENT_LIST_DIR}/inrush.map)
  target_link_options(inrush PRIVATE -Wl,--version-script=${map})
  set_target_properties(inrush PROPERTIES LINK_DEPENDS ${map}
    VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
else()
  add_library(inrush STATIC ${objects})
endif()
add_library(inrush::inrush ALIAS inrush)
set_target_properties(inrush PROPERTIES LINKER_LANGUAGE CXX)
target_compile_features(inrush PUBLIC cxx_std_20)
target_include_directories(inrush PUBLIC
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_link_libraries(inrush
  PUBLIC Threads::Threads
  PRIVATE ${third_party} ${CMAKE_DL_LIBS})

# Public are the headers directly in inrush/ and those of the layers below that they include.
file(GLOB public_headers inrush/*.h)
file(GLOB core_headers inrush/core/*.h)
set(base_headers inrush/base/numa.h)
set(policy_headers inrush/policy/choose.h inrush/policy/facts.h inrush/policy/profile.h)
set(codecs_headers inrush/codecs/leaf_tree.h inrush/codecs/sha256_tree.h)
set(include_dir ${CMAKE_INSTALL_INCLUDEDIR}/inrush)
set(cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/inrush)

install(FILES ${public_headers} DESTINATION ${include_dir} COMPONENT development)
install(FILES ${core_headers} DESTINATION ${include_dir}/core COMPONENT development)
install(FILES ${base_headers} DESTINATION ${include_dir}/base COMPONENT development)
install(FILES ${policy_headers} DESTINATION ${include_dir}/policy COMPONENT development)
install(FILES ${codecs_headers} DESTINATION ${include_dir}/codecs COMPONENT development)
install(TARGETS inrush EXPORT inrush-targets
  ARCHIVE COMPONENT development
  LIBRARY COMPONENT development)
install(EXPORT inrush-targets NAMESPACE inrush:: DESTINATION ${cmake_dir} COMPONENT development)

configure_package_config_file(cmake/inrushConfig.cmake.in inrushConfig.cmake
  INSTALL_DESTINATION ${cmake_dir})
write_basic_package_version_file(inrushConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/inrushConfig.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/inrushConfigVersion.cmake
  DESTINATION ${cmake_dir} COMPONENT development)
