-- A head of ten fields that is never sent twice, as a server sees them behind a proxy which numbers
-- its requests. The argument after -- keeps the runs of one server apart: wrk ... -- ROUND

local before, after, round, count

function init(args)
  round, count = args[1] or "0", 0
  before = table.concat({
    "GET " .. wrk.path .. " HTTP/1.1",
    "Host: " .. wrk.headers["Host"],
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language: en-US,en;q=0.5",
    "Accept-Encoding: gzip, deflate, br",
    "Referer: http://www.example.com/shop/index.html",
    "Connection: keep-alive",
    "Cookie: theme=dark; consent=1",
    "X-Forwarded-For: 203.0.113.7",
    "X-Request-ID: ",
  }, "\r\n")
  after = "\r\n\r\n"
end

function request()
  count = count + 1
  return before .. round .. "-" .. count .. after
end
