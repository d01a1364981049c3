#include "base/event_loop.h"

#include <array>
#include <atomic>
#include <optional>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/fd.h"

namespace caisson {
namespace {

struct Pair {
  Pair() {
    std::array<int, 2> fds{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds.data()), 0);
    a = Fd{fds[0]};
    b = Fd{fds[1]};
  }
  Fd a, b;
};

void put_byte(const Fd& fd) { ASSERT_EQ(::write(fd.get(), "x", 1), 1); }
bool take_byte(const Fd& fd) {
  char byte = 0;
  return ::read(fd.get(), &byte, 1) == 1;
}

class EventLoopTest : public testing::Test {
 protected:
  bool guard_is_held() {
    bool held = false;
    std::thread{[&] {
      held = !guard.try_lock();
      if (!held) guard.unlock();
    }}.join();
    return held;
  }

  std::mutex guard;
  std::unique_ptr<EventLoop> loop = EventLoop::create(&guard).value();
};

TEST_F(EventLoopTest, TasksRunInOrderUnderTheGuard) {
  std::vector<int> order;
  bool held = false;
  loop->post([&] { order.push_back(1); });
  loop->post([&] {
    order.push_back(2);
    held = guard_is_held();
    loop->post([&] {
      order.push_back(3);
      loop->stop();
    });
  });
  loop->run();
  EXPECT_EQ(order, (std::vector{1, 2, 3}));
  EXPECT_TRUE(held);
}

TEST_F(EventLoopTest, TasksPostedBeforeStopRun) {
  bool ran = false;
  loop->post([&] { ran = true; });
  loop->stop();
  loop->run();
  EXPECT_TRUE(ran);
}

TEST_F(EventLoopTest, CanRunAgainAfterStop) {
  loop->stop();
  loop->run();
  bool ran = false;
  loop->post([&] {
    ran = true;
    loop->stop();
  });
  loop->run();
  EXPECT_TRUE(ran);
}

TEST_F(EventLoopTest, WatchIsLevelTriggeredAndReportsEvents) {
  Pair pair;
  int calls = 0;
  uint32_t seen = 0;
  loop->watch(pair.a.get(), EPOLLIN, [&](uint32_t events) {
    seen = events;
    if (++calls < 3) return;  // leaves the byte where it is: called again
    EXPECT_TRUE(guard_is_held());
    EXPECT_TRUE(take_byte(pair.a));
    loop->stop();
  });
  put_byte(pair.b);
  loop->run();
  EXPECT_EQ(calls, 3);
  EXPECT_EQ(seen, uint32_t{EPOLLIN});
}

TEST_F(EventLoopTest, WatchingAgainReplacesHandlerAndEvents) {
  Pair pair;
  int first = 0, second = 0;
  loop->watch(pair.a.get(), EPOLLIN, [&](uint32_t) { ++first; });
  loop->watch(pair.a.get(), EPOLLOUT, [&](uint32_t events) {
    EXPECT_EQ(events, uint32_t{EPOLLOUT});
    ++second;
    loop->unwatch(pair.a.get());
    loop->stop();
  });
  put_byte(pair.b);
  loop->run();
  EXPECT_EQ(first, 0);
  EXPECT_EQ(second, 1);
}

TEST_F(EventLoopTest, HandlerMayUnwatchItselfAndOthers) {
  Pair one, two;
  int calls = 0;
  const auto handler = [&](uint32_t) {
    ++calls;
    loop->unwatch(one.a.get());
    loop->unwatch(two.a.get());
    loop->post([&] { loop->stop(); });
  };
  loop->watch(one.a.get(), EPOLLIN, handler);
  loop->watch(two.a.get(), EPOLLIN, handler);
  put_byte(one.b);
  put_byte(two.b);  // both are in one epoll_wait answer, yet only one handler runs
  loop->run();
  EXPECT_EQ(calls, 1);
}

TEST_F(EventLoopTest, DescriptorNumberReusedWithoutUnwatch) {
  auto old_pair = std::make_unique<Pair>();
  const int number = old_pair->a.get();
  bool old_called = false, new_called = false;
  loop->watch(number, EPOLLIN, [&](uint32_t) { old_called = true; });
  old_pair.reset();
  Pair pair;
  ASSERT_EQ(pair.a.get(), number);
  loop->watch(number, EPOLLIN, [&](uint32_t) {
    new_called = true;
    loop->stop();
  });
  put_byte(pair.b);
  loop->run();
  EXPECT_FALSE(old_called);
  EXPECT_TRUE(new_called);
}

TEST_F(EventLoopTest, HandlerWhoseCapturesCallTheLoopWhenTheyGo) {
  struct Unwatches {
    EventLoop* loop;
    int fd;
    ~Unwatches() { loop->unwatch(fd); }
  };
  Pair pair, other;
  auto owner = std::make_shared<Unwatches>(loop.get(), other.a.get());
  loop->watch(pair.a.get(), EPOLLIN, [owner](uint32_t) {});
  owner.reset();
  loop->unwatch(pair.a.get());  // would deadlock if the handler went under the loop's own lock
}

TEST_F(EventLoopTest, HangUpIsReported) {
  Pair pair;
  uint32_t seen = 0;
  loop->watch(pair.a.get(), EPOLLIN, [&](uint32_t events) {
    seen = events;
    loop->stop();
  });
  pair.b.reset();
  loop->run();
  EXPECT_TRUE(seen & EPOLLHUP);
}

TEST_F(EventLoopTest, FilesThatEpollRefusesAreAlwaysReady) {
  Fd null{::open("/dev/null", O_RDONLY | O_CLOEXEC)};
  int calls = 0;
  loop->watch(null.get(), EPOLLIN, [&](uint32_t events) {
    EXPECT_EQ(events, uint32_t{EPOLLIN});
    if (++calls == 2) {
      loop->unwatch(null.get());
      loop->stop();
    }
  });
  loop->run();
  EXPECT_EQ(calls, 2);
}

TEST_F(EventLoopTest, TimersFireInOrderOfDeadline) {
  std::vector<int> order;
  std::vector<std::unique_ptr<EventLoop::Timer>> timers;
  const uint64_t start = EventLoop::now_ns();
  constexpr std::array delays{7, 3, 9, 1, 5, 0, 8, 2, 6, 4};
  for (const int delay : delays) {
    timers.push_back(loop->create_timer([&, delay] {
      EXPECT_GE(EventLoop::now_ns(), start + static_cast<uint64_t>(delay) * 1'000'000);
      order.push_back(delay);
      if (order.size() == delays.size()) loop->stop();
    }));
    timers.back()->arm(start + static_cast<uint64_t>(delay) * 1'000'000);
  }
  loop->run();
  EXPECT_EQ(order, (std::vector{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
}

TEST_F(EventLoopTest, TimerInThePastFiresUnderTheGuard) {
  bool held = false;
  const auto timer = loop->create_timer([&] {
    held = guard_is_held();
    loop->stop();
  });
  timer->arm(0);
  loop->run();
  EXPECT_TRUE(held);
}

TEST_F(EventLoopTest, CancelledAndReplacedDeadlines) {
  bool cancelled_fired = false;
  int fired = 0;
  const auto cancelled = loop->create_timer([&] { cancelled_fired = true; });
  const auto replaced = loop->create_timer([&] { ++fired; });
  const auto end = loop->create_timer([&] { loop->stop(); });
  const uint64_t now = EventLoop::now_ns();
  cancelled->arm(now + 1'000'000);
  cancelled->cancel();
  cancelled->cancel();
  replaced->arm(UINT64_MAX);
  replaced->arm(now + 1);
  replaced->arm(now + 2'000'000);
  end->arm(now + 4'000'000);
  loop->run();
  EXPECT_FALSE(cancelled_fired);
  EXPECT_EQ(fired, 1);
}

TEST_F(EventLoopTest, HandlerMayDestroyItsOwnAndOtherTimers) {
  std::unique_ptr<EventLoop::Timer> one, two;
  int calls = 0;
  const auto handler = [&] {
    ++calls;
    one.reset();
    two.reset();
    loop->post([&] { loop->stop(); });
  };
  one = loop->create_timer(handler);
  two = loop->create_timer(handler);
  one->arm(0);
  two->arm(0);
  loop->run();
  EXPECT_EQ(calls, 1);
}

TEST_F(EventLoopTest, TimerThatArmsItselfInThePastDoesNotShutOutOthers) {
  int calls = 0;
  bool stopping = false;
  std::unique_ptr<EventLoop::Timer> timer;
  timer = loop->create_timer([&] {
    ++calls;
    timer->arm(0);
    if (calls == 10) loop->post([&] { stopping = true; });
    if (stopping) loop->stop();
  });
  timer->arm(0);
  loop->run();
  EXPECT_GE(calls, 11);
}

TEST_F(EventLoopTest, TimerMayOutliveTheLoop) {
  const auto timer = loop->create_timer([] {});
  timer->arm(EventLoop::now_ns() + 1'000'000'000);
  loop.reset();
  timer->arm(0);
  timer->cancel();
}

TEST_F(EventLoopTest, OtherThreadsUnderTheGuardStopHandlersForGood) {
  // Vcpu threads arm, cancel, destroy, watch and unwatch under the guard while the loop runs; a handler that starts
  // after its owner has gone would find `alive` false.
  std::thread runner{[&] { loop->run(); }};
  std::atomic<uint64_t> wrong{0};
  const auto work = [&] {
    for (int round = 0; round < 300; ++round) {
      Pair pair;
      bool alive = true;  // guarded by guard
      std::unique_ptr<EventLoop::Timer> timer;
      {
        const std::lock_guard lock{guard};
        timer = loop->create_timer([&alive, &wrong] { wrong += !alive; });
        loop->watch(pair.a.get(), EPOLLIN, [&alive, &wrong, &pair](uint32_t) {
          wrong += !alive;
          take_byte(pair.a);
        });
      }
      timer->arm(EventLoop::now_ns() + 1000);
      put_byte(pair.b);
      if (round % 3 == 0) std::this_thread::yield();
      timer->arm(0);
      timer->cancel();
      timer->arm(EventLoop::now_ns());
      const std::lock_guard lock{guard};
      timer.reset();
      loop->unwatch(pair.a.get());
      alive = false;
    }
  };
  std::thread one{work}, two{work};
  one.join();
  two.join();
  loop->stop();
  runner.join();
  EXPECT_EQ(wrong, 0u);
}

TEST_F(EventLoopTest, TasksFromManyThreadsAllRun) {
  int count = 0;  // guarded by guard
  std::vector<std::thread> threads;
  std::thread runner{[&] { loop->run(); }};
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int task = 0; task < 1000; ++task) loop->post([&] { ++count; });
    });
  }
  for (auto& thread : threads) thread.join();
  loop->stop();
  runner.join();
  EXPECT_EQ(count, 4000);
}

TEST(EventLoopWithoutGuard, Runs) {
  const auto loop = EventLoop::create(nullptr).value();
  int calls = 0;
  const auto timer = loop->create_timer([&] {
    ++calls;
    loop->stop();
  });
  loop->post([&] { ++calls; });
  timer->arm(0);
  loop->run();
  EXPECT_EQ(calls, 2);
}

}  // namespace
}  // namespace caisson
