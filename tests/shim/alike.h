// Compares a declaration of ours with a vendor's, without its names.
#pragma once

#include <type_traits>

namespace inrush::test {

// How many arguments a function takes, and how large each is: what the call itself depends on.
template <typename Ours, typename Theirs>
struct Alike : std::false_type {};
template <typename R1, typename... Ours, typename R2, typename... Theirs>
struct Alike<R1 (*)(Ours...), R2(Theirs...)>
    : std::bool_constant<sizeof(R1) == sizeof(R2) && sizeof...(Ours) == sizeof...(Theirs)> {
  static_assert(((sizeof(Ours) == sizeof(Theirs)) && ...));
  static_assert(((std::is_pointer_v<Ours> == std::is_pointer_v<Theirs>)&&...));
};

}  // namespace inrush::test
