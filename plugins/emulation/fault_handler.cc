// Hardware faults in device code become fail(), with the text of where and what.
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "emulation/device_memory.h"
#include "emulation/failures.h"
#include "emulation/sanitizers.h"
#include "emulation/scheduler.h"

namespace deploydcn::emulation {
namespace {

constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
struct sigaction previous_actions[std::size(kSignals)];

struct {
  int signal;
  const void* address;
  bool has_address;
} fault;

// Runs on the faulting thread's own stack, from the top, once the signal handler has returned.
[[noreturn]] void land_after_fault() {
  switch (fault.signal) {
    case SIGFPE: fail(cudaErrorLaunchFailure, "arithmetic exception: integer division by zero or overflow");
    case SIGILL: fail(cudaErrorIllegalInstruction, "illegal instruction or unreachable code");
    default: break;
  }
  if (!fault.has_address) fail(cudaErrorMisalignedAddress, "misaligned vector access, or an address that cannot exist");
  if (this_thread().fiber.overflowed_at(fault.address)) fail(cudaErrorLaunchFailure, "stack overflow");
  fail(cudaErrorIllegalAddress, "illegal memory access at %p%s", fault.address,
       describe_address(fault.address).c_str());
}

void on_signal(int signal, siginfo_t* info, void* context) {
  if (on_device()) {
    fault = {signal, info->si_addr, info->si_code != SI_KERNEL};
    // Return not to the faulting instruction but into land_after_fault, as if it had just been called.
    auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
    registers[REG_RSP] = reinterpret_cast<greg_t>(this_thread().fiber.stack_top()) - 8;
    registers[REG_RIP] = reinterpret_cast<greg_t>(land_after_fault);
    return;
  }
  if (signal == SIGSEGV && on_device_page(info->si_addr)) {
    char text[200];
    const int length =
        std::snprintf(text, sizeof(text), "emulation: host code touched device memory at %p\n", info->si_addr);
    if (write(STDERR_FILENO, text, static_cast<size_t>(length)) < 0) _exit(138);
    _exit(139);
  }
  // Not ours: another handler's, or the instruction faults again under the default action.
  for (size_t i = 0; i < std::size(kSignals); ++i) {
    if (kSignals[i] != signal) continue;
    if (previous_actions[i].sa_flags & SA_SIGINFO) return previous_actions[i].sa_sigaction(signal, info, context);
    sigaction(signal, &previous_actions[i], nullptr);
  }
}

// A stack that overflowed cannot run its own handler. One per OS thread.
void provide_signal_stack() {
  thread_local bool provided = false;
  if (provided) return;
  provided = true;
  stack_t current{};
  sigaltstack(nullptr, &current);
  if (!(current.ss_flags & SS_DISABLE)) return;  // somebody else's will do
  constexpr size_t kBytes = 64 * 1024;
  void* const memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  stack_t stack{};
  stack.ss_sp = memory;
  stack.ss_size = kBytes;
  if (memory != MAP_FAILED) sigaltstack(&stack, nullptr);
}

}  // namespace

void install_fault_handler() {
  if (kAddressSanitizer) return;  // reports faults better
  provide_signal_stack();
  static bool installed = false;
  if (installed) return;
  installed = true;
  struct sigaction action{};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  for (size_t i = 0; i < std::size(kSignals); ++i) sigaction(kSignals[i], &action, &previous_actions[i]);
}

}  // namespace deploydcn::emulation
