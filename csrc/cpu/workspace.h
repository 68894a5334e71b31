// Large buffers that are kept when their tensor lets go of them, for the next tensor of that size: fresh pages cost
// more than what is written to them. What is kept idle is bounded, and freed on request.
#pragma once
#include <cstddef>

namespace fastrw {
void* take_workspace(size_t bytes);  // on a cache line, holding anything
void give_workspace(void* data);     // from any thread: the last reference to it is gone
size_t free_workspaces();            // the bytes that were idle
size_t idle_workspaces();
}  // namespace fastrw
