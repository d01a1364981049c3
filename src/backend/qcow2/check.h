// Counting the references to every cluster of an image, comparing with what the image says, and mending it.
//   Models   the whole image: both kinds of tables, snapshots, bitmaps, compressed clusters, COPIED flags
//   Bounded  memory grows with the references there are, not with what the image claims to be
//   Threads  none of its own; nobody else uses the image meanwhile
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "backend/qcow2/header.h"
#include "base/result.h"

namespace caisson::qcow2 {

// What an open descriptor has; shared with Image.
[[nodiscard]] Result<Header> read_header(int fd);
[[nodiscard]] Result<std::vector<Snapshot>> read_snapshots(int fd, const Header& header, size_t& used);

struct CheckReport {
  uint64_t disk_clusters = 0;        // that the disk has
  uint64_t allocated_clusters = 0;   // of those, with data of their own
  uint64_t compressed_clusters = 0;  // of the allocated
  uint64_t leaks = 0;                // clusters that are counted too often: room that is lost, no more
  uint64_t corruptions = 0;          // everything else
  uint64_t fixed_leaks = 0;
  uint64_t fixed_corruptions = 0;
  std::vector<std::string> messages;  // the first ones

  [[nodiscard]] bool clean() const { return leaks == 0 && corruptions == 0; }
};

// Called now and then with what part is done, 0 to 1.
using CheckProgress = std::function<void(double part)>;

// `fd` open for reading.
[[nodiscard]] Result<CheckReport> check(int fd, const CheckProgress& progress = {});
// `fd` open for writing. What the report still counts as leaks or corruptions could not be mended.
[[nodiscard]] Result<CheckReport> repair(int fd, const CheckProgress& progress = {});
// Like repair(), for an image that was not closed well; an error where something stays wrong.
[[nodiscard]] Result<> repair_refcounts(int fd);

}  // namespace caisson::qcow2
