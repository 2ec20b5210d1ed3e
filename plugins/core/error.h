// Errors by cause: a caller's mistake and a bug of ours never share a class.
#pragma once

#include <stdexcept>
#include <string>

namespace deploydcn {

// A shape, dtype or attribute the op does not accept. The message says what, got, wanted, fix.
class InvalidArgument : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

// An invariant of this library is broken, whatever the input was.
class InternalError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

// The GPU or its driver refused or failed.
class DeviceError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace deploydcn
