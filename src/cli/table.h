// Rows of words in columns, for people.
#pragma once

#include <string>
#include <vector>

namespace caisson::cli {

// A line for each row, all of as many cells as the first, which is the heading.
[[nodiscard]] std::string table_text(const std::vector<std::vector<std::string>>& rows);

}  // namespace caisson::cli
