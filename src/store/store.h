// The machines of this user: <data>/caisson/vms/, a folder for each (vm_folder.h).
//   Whole    a machine is made in a folder whose name begins with a dot, and renamed into place; it is renamed away
//            before it is removed. What a killed command leaves under such a name, nobody holding its lock, the next
//            one removes.
//   Threads  one object, one thread; any number of processes
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "store/vm_folder.h"

namespace caisson::store {

class Store {
 public:
  // Makes the folder where there is none.
  [[nodiscard]] static Result<Store> open();
  [[nodiscard]] static Result<Store> open_at(std::string path);

  [[nodiscard]] const std::string& path() const { return path_; }
  // In alphabetical order.
  [[nodiscard]] Result<std::vector<std::string>> names() const;
  // An error that names the remedy where there is none.
  [[nodiscard]] Result<VmFolder> find(std::string_view name) const;
  [[nodiscard]] bool has(std::string_view name) const;

  // A machine being made: nobody sees it before finish().
  struct Draft {
    VmFolder folder;
    Fd lock;
  };
  [[nodiscard]] Result<Draft> begin(std::string_view name) const;
  // Puts it in place; the lock stays with the machine. An error where there is one of that name.
  [[nodiscard]] Result<Draft> finish(Draft draft, const VmSpec& spec) const;
  void give_up(Draft draft) const;

  // With the machine's lock, not alive.
  [[nodiscard]] Result<> remove(const VmFolder& folder, const Fd& lock) const;
  [[nodiscard]] Result<> rename(const VmFolder& folder, const Fd& lock, std::string_view to) const;

  // Removes what killed commands left, transient machines that have ended without their command, and control groups of
  // machines that have ended.
  void sweep() const;

 private:
  explicit Store(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

}  // namespace caisson::store
