-- A script language at work: tables, strings, closures, floating point. Prints a checksum.
local function queens(n)
  local columns, up, down, found = {}, {}, {}, 0
  local function place(row)
    if row > n then
      found = found + 1
      return
    end
    for column = 1, n do
      if not columns[column] and not up[row + column] and not down[row - column + n] then
        columns[column], up[row + column], down[row - column + n] = true, true, true
        place(row + 1)
        columns[column], up[row + column], down[row - column + n] = false, false, false
      end
    end
  end
  place(1)
  return found
end

local pieces, state = {}, 1
for i = 1, 10000 do
  state = (state * 1103515245 + 12345) % 2147483648
  pieces[#pieces + 1] = string.format("%d:%x", i % 10, state)
end
local text, sum = table.concat(pieces, " "), 0
for word in text:gmatch("%d:(%x+)") do sum = (sum * 31 + tonumber(word, 16)) % 1000003 end
local series = 0.0
for i = 1, 150000 do series = series + 1.0 / (i * i) end
print(queens(7), sum, string.format("%.9f", series))
