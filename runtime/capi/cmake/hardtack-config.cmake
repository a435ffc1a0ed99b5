# Defines the target hardtack::hardtack: the static library, or the shared one if HARDTACK_SHARED is
# on. The files are ../../libhardtack.* and ../../../include/hardtack.h.
get_filename_component(_hardtack_lib "${CMAKE_CURRENT_LIST_DIR}/../.." ABSOLUTE)
get_filename_component(_hardtack_prefix "${_hardtack_lib}/.." ABSOLUTE)

if(NOT TARGET hardtack::hardtack)
  if(HARDTACK_SHARED)
    add_library(hardtack::hardtack SHARED IMPORTED)
    set_target_properties(hardtack::hardtack PROPERTIES
      IMPORTED_LOCATION "${_hardtack_lib}/libhardtack.so"
      IMPORTED_SONAME "libhardtack.so.0")
  else()
    find_package(Threads REQUIRED)
    add_library(hardtack::hardtack STATIC IMPORTED)
    set_target_properties(hardtack::hardtack PROPERTIES
      IMPORTED_LOCATION "${_hardtack_lib}/libhardtack.a"
      INTERFACE_LINK_LIBRARIES "Threads::Threads;${CMAKE_DL_LIBS};m")
  endif()
  set_target_properties(hardtack::hardtack PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES "${_hardtack_prefix}/include")
endif()

unset(_hardtack_lib)
unset(_hardtack_prefix)
