// The code of fmt that its headers do not hold. Debian has it as a shared library only, and loading that takes longer
// than all that a start prints.
#include <fmt/format-inl.h>

namespace fmt {

template auto detail::thousands_sep_impl<char>(locale_ref) -> thousands_sep_result<char>;
template char detail::decimal_point_impl<char>(locale_ref);
template void detail::vformat_to(detail::buffer<char>&, string_view, basic_format_args<FMT_BUFFER_CONTEXT(char)>,
                                 detail::locale_ref);

}  // namespace fmt
