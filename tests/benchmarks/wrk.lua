-- For wrk (https://github.com/wg/wrk): asks for a path with another number each time, prints JSON in the end.

local threads = 0

function setup(thread)
   threads = threads + 1
   thread:set("seed", threads)
end

function init(arguments)
   math.randomseed(seed)
   pattern = arguments[1]
   highest = tonumber(arguments[2])
end

function request()
   return wrk.format("GET", string.format(pattern, math.random(highest)))
end

function done(summary, latency, requests)
   local errors = summary.errors
   local form = '{"requests": %d, "duration": %f, "bytes": %d, "p50": %f, "p99": %f, "worst": %f, '
      .. '"refused": %d, "broken": %d, "statuses": %d, "timeouts": %d}\n'
   io.write(string.format(form, summary.requests, summary.duration / 1e6, summary.bytes,
      latency:percentile(50) / 1e6, latency:percentile(99) / 1e6, latency.max / 1e6,
      errors.connect, errors.read + errors.write, errors.status, errors.timeout))
end
