#include "backend/qcow2/range_lock.h"

#include <iterator>

namespace caisson::qcow2 {

std::list<RangeLock::Entry>::iterator RangeLock::add(uint64_t first, uint64_t last, bool exclusive) {
  if (spare_.empty()) return entries_.insert(entries_.end(), {first, last, exclusive});
  spare_.front() = {first, last, exclusive};
  entries_.splice(entries_.end(), spare_, spare_.begin());
  return std::prev(entries_.end());
}

void RangeLock::remove(std::list<Entry>::iterator entry) { spare_.splice(spare_.begin(), entries_, entry); }

bool RangeLock::blocked(std::list<Entry>::const_iterator entry) const {
  for (auto earlier = entries_.begin(); earlier != entry; ++earlier) {
    if (earlier->first <= entry->last && entry->first <= earlier->last && (earlier->exclusive || entry->exclusive)) {
      return true;
    }
  }
  return false;
}

RangeLock::Held RangeLock::take(uint64_t first, uint64_t last, bool exclusive) {
  std::unique_lock lock{mutex_};
  const auto entry = add(first, last, exclusive);
  ++waiting_;
  released_.wait(lock, [&] { return !blocked(entry); });
  --waiting_;
  return {*this, entry};
}

std::optional<RangeLock::Held> RangeLock::try_take(uint64_t first, uint64_t last, bool exclusive) {
  const std::lock_guard lock{mutex_};
  const auto entry = add(first, last, exclusive);
  if (blocked(entry)) {
    remove(entry);
    return std::nullopt;
  }
  return Held{*this, entry};
}

void RangeLock::release(std::list<Entry>::iterator entry) {
  bool wake = false;
  {
    const std::lock_guard lock{mutex_};
    remove(entry);
    wake = waiting_ > 0;
  }
  if (wake) released_.notify_all();
}

}  // namespace caisson::qcow2
