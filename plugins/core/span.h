// A view of a contiguous array (std::span is C++20).
#pragma once

#include <cstddef>

namespace deploydcn {

template <class T>
class Span {
 public:
  constexpr Span() = default;
  constexpr Span(T* data, std::size_t size) : data_(data), size_(size) {}
  template <class U, std::size_t N>
  constexpr Span(U (&array)[N]) : data_(array), size_(N) {}
  template <class Container>
  constexpr Span(Container& container) : data_(container.data()), size_(container.size()) {}

  constexpr T* begin() const { return data_; }
  constexpr T* end() const { return data_ + size_; }
  constexpr T* data() const { return data_; }
  constexpr std::size_t size() const { return size_; }
  constexpr bool empty() const { return size_ == 0; }
  constexpr T& operator[](std::size_t index) const { return data_[index]; }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace deploydcn
