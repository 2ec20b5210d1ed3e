// Messages to the user through TensorRT's own logger: TensorRT itself reports only a plugin's return code.
#pragma once

#include <string>

namespace deploydcn::trt {

// `finder`: the ILoggerFinder that TensorRT hands to setLoggerFinder, of whichever TensorRT loaded this library.
void set_logger_finder(void* finder);

// Reports an error; to standard error when there is no logger.
void log_error(const std::string& message) noexcept;

}  // namespace deploydcn::trt
