#include "fetch/transfer.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>
#include <optional>
#include <string_view>

#include <curl/curl.h>
#include <unistd.h>

namespace caisson::fetch {
namespace {

constexpr long most_redirects = 8;
constexpr long connect_s = 30;
constexpr size_t most_validator = 256;

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.back() == '\r' || text.back() == '\n' || text.back() == ' ')) text.remove_suffix(1);
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  return text;
}

std::optional<uint64_t> number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

// RFC 9110, 14.4: "bytes FIRST-LAST/TOTAL", "bytes */TOTAL"; TOTAL may be "*".
struct ContentRange {
  std::optional<uint64_t> first, total;
};
ContentRange content_range(std::string_view text) {
  ContentRange range;
  if (!text.starts_with("bytes ")) return range;
  text.remove_prefix(6);
  const size_t slash = text.find('/');
  if (slash == std::string_view::npos) return range;
  range.total = number(text.substr(slash + 1));
  range.first = number(text.substr(0, text.find('-')));
  return range;
}

struct Transfer {
  const Request& request;
  const int file;
  const Told& told;
  CURL* curl = nullptr;
  // Of the answer whose headers come.
  std::string etag{}, date{};
  ContentRange range{};
  // Once its content comes.
  bool begun = false;
  uint64_t at = 0;
  uint64_t total = 0;
  std::optional<Failure> failure{};

  bool fail_here(Failure why) {
    failure = std::move(why);
    return false;
  }
  long status() const {
    long code = 0;
    ::curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &code);
    return code;
  }
  // Only a strong one holds for bytes (RFC 9110, 8.8.1), and one that can be said again in a header.
  [[nodiscard]] std::string validator() const {
    const std::string& said = !etag.empty() && !etag.starts_with("W/") ? etag : etag.empty() ? date : "";
    return said.size() > most_validator ? "" : said;
  }

  void header(std::string_view line) {
    if (line.starts_with("HTTP/")) {  // of another answer, after a redirect
      etag.clear(), date.clear(), range = {};
      return;
    }
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) return;
    const auto is = [&](std::string_view name) {
      return colon == name.size() && ::strncasecmp(line.data(), name.data(), name.size()) == 0;
    };
    const std::string_view value = trimmed(line.substr(colon + 1));
    if (is("ETag")) etag = value;
    if (is("Last-Modified")) date = value;
    if (is("Content-Range")) range = content_range(value);
  }

  bool begin() {
    begun = true;
    const long code = status();
    if (code != 200 && code != 206) return fail_here(refusal(code));
    curl_off_t length = -1;
    ::curl_easy_getinfo(curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    if (code == 206) {
      if (range.first != request.from) return fail_here({{"the server sends another part than was asked for"}, false});
      at = request.from;
    }
    total = length >= 0 ? at + static_cast<uint64_t>(length) : 0;
    if (total > request.most) return fail_here(too_large());
    if (::ftruncate(file, static_cast<off_t>(at)) != 0) return fail_here(cannot_write(errno));
    if (told.begins) told.begins(validator(), at, total);
    return true;
  }

  bool content(std::string_view bytes) {
    if (!begun && !begin()) return false;
    if (bytes.size() > request.most - at) return fail_here(too_large());
    while (!bytes.empty()) {
      const ssize_t size = ::pwrite(file, bytes.data(), bytes.size(), static_cast<off_t>(at));
      if (size < 0 && errno == EINTR) continue;
      if (size < 0) return fail_here(cannot_write(errno));
      at += static_cast<uint64_t>(size);
      bytes.remove_prefix(static_cast<size_t>(size));
    }
    if (told.progress) told.progress(at, total);
    return true;
  }

  [[nodiscard]] Failure too_large() const {
    return {{fmt::format("it has more than the {} bytes that are allowed; see --most", request.most)}, false};
  }
  static Failure cannot_write(int error) {
    char text[128];
    return {{fmt::format("cannot write the download: {}", ::strerror_r(error, text, sizeof text))}, false};
  }
  static Failure refusal(long code) {
    // RFC 9110, 15.6 and 15.5.9; 429 of RFC 6585: later it may work.
    const bool again = code >= 500 || code == 408 || code == 429;
    return {{fmt::format("the server answers with status {}{}", code, code == 404 ? ": there is no such file" : "")},
            again};
  }
};

size_t on_header(char* bytes, size_t, size_t size, void* transfer) {
  static_cast<Transfer*>(transfer)->header({bytes, size});
  return size;
}

size_t on_content(char* bytes, size_t, size_t size, void* transfer) {
  return static_cast<Transfer*>(transfer)->content({bytes, size}) ? size : 0;
}

bool may_work_later(CURLcode code) {
  constexpr std::array codes{CURLE_COULDNT_RESOLVE_HOST,
                             CURLE_COULDNT_RESOLVE_PROXY,
                             CURLE_COULDNT_CONNECT,
                             CURLE_PARTIAL_FILE,
                             CURLE_OPERATION_TIMEDOUT,
                             CURLE_GOT_NOTHING,
                             CURLE_SEND_ERROR,
                             CURLE_RECV_ERROR,
                             CURLE_HTTP2,
                             CURLE_HTTP2_STREAM};
  return std::ranges::find(codes, code) != codes.end();
}

}  // namespace

std::expected<uint64_t, Failure> transfer(const Request& request, int file, const Told& told) {
  const auto unusable = [](const char* why) { return std::unexpected(Failure{{why}, false}); };
  const bool secure = ::strncasecmp(request.url.c_str(), "https://", 8) == 0;
  if (!secure && ::strncasecmp(request.url.c_str(), "http://", 7) != 0) {
    return unusable("only http and https are fetched");
  }
  const std::unique_ptr<CURL, decltype(&::curl_easy_cleanup)> curl{::curl_easy_init(), ::curl_easy_cleanup};
  if (!curl) return unusable("libcurl does not start");
  Transfer one{.request = request, .file = file, .told = told, .curl = curl.get()};
  std::array<char, CURL_ERROR_SIZE> message{};
  const auto set = [&](CURLoption option, auto value) {
    return ::curl_easy_setopt(curl.get(), option, value) == CURLE_OK;
  };
  // A redirect never leads out of what is encrypted.
  bool ok = set(CURLOPT_URL, request.url.c_str()) && set(CURLOPT_PROTOCOLS_STR, "http,https") &&
            set(CURLOPT_REDIR_PROTOCOLS_STR, secure ? "https" : "http,https") && set(CURLOPT_FOLLOWLOCATION, 1L) &&
            set(CURLOPT_MAXREDIRS, most_redirects) && set(CURLOPT_NOSIGNAL, 1L) &&
            set(CURLOPT_CONNECTTIMEOUT, connect_s) && set(CURLOPT_LOW_SPEED_LIMIT, 1L) &&
            set(CURLOPT_LOW_SPEED_TIME, static_cast<long>(request.stall_s)) && set(CURLOPT_USERAGENT, "caisson") &&
            set(CURLOPT_ERRORBUFFER, message.data()) && set(CURLOPT_HEADERFUNCTION, &on_header) &&
            set(CURLOPT_HEADERDATA, static_cast<void*>(&one)) && set(CURLOPT_WRITEFUNCTION, &on_content) &&
            set(CURLOPT_WRITEDATA, static_cast<void*>(&one)) && set(CURLOPT_BUFFERSIZE, 256L * 1024);
  std::unique_ptr<curl_slist, decltype(&::curl_slist_free_all)> headers{nullptr, ::curl_slist_free_all};
  const bool resumes = request.from != 0 && !request.validator.empty();
  if (resumes) {
    headers.reset(::curl_slist_append(nullptr, ("If-Range: " + request.validator).c_str()));
    ok = ok && headers && set(CURLOPT_HTTPHEADER, headers.get()) &&
         set(CURLOPT_RANGE, fmt::format("{}-", request.from).c_str());
  }
  if (!ok) return unusable("libcurl cannot be set up");
  const CURLcode code = ::curl_easy_perform(curl.get());
  if (one.failure) return std::unexpected(std::move(*one.failure));
  if (code != CURLE_OK) {
    const char* const why = message[0] != '\0' ? message.data() : ::curl_easy_strerror(code);
    return std::unexpected(Failure{{why}, may_work_later(code)});
  }
  const long status = one.status();
  // Nothing is missing: the earlier try was cut off right behind the last byte (RFC 9110, 15.5.17).
  if (resumes && status == 416 && one.range.total == request.from) return request.from;
  if (status == 416) return std::unexpected(Failure{{"the file on the server has changed"}, true});
  // An empty file has no content to begin with.
  if (!one.begun && !one.begin()) return std::unexpected(std::move(*one.failure));
  return one.at;
}

}  // namespace caisson::fetch
