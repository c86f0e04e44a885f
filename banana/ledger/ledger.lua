#!lua
-- The ledger's decisions in Redis or Valkey: each is one run of this script, and nothing else happens meanwhile.
--
-- KEYS[1] is the beginning of every key. ARGV: the operation; the session and the number of the change in it, 0 for what
-- changes nothing or may come at any time; the time in seconds of the epoch, empty for Redis' own; then what the operation is given.
-- Times that are given are seconds from now, so that no machine's clock is compared with another's.

local DAY_SECONDS, KEY_WINDOW_SECONDS = 86400, 600
-- Days that are kept one by one, as many as 62 and some more; and the day under which older ones are summed up.
local KEPT_DAYS, MOST_DAYS, EARLIER = 62, 80, '0'
-- What comes later than this is not looked for: a session's last number, a reservation that was charged for a dead owner.
local SESSION_SECONDS, PRESUMED_SECONDS = 3600, 2 * DAY_SECONDS
local FIELDS = {
  'id', 'caller', 'key', 'route', 'fingerprint', 'calls', 'has_links', 'is_task', 'owner', 'request_id',
  'keep_seconds', 'created_at', 'expires_at', 'state', 'result', 'is_presumed', 'number',
}
local STATES = { 'begun', 'sent', 'completed', 'failed', 'cancelled' }

local call = redis.call
local operation, session, number = ARGV[1], ARGV[2], tonumber(ARGV[3])
local is_repeat = false
local given = { unpack(ARGV, 5) }
local now = tonumber(ARGV[4])
if not now then
  local time = call('TIME')
  now = time[1] + time[2] / 1e6
end

local function name(...)
  return KEYS[1] .. table.concat({ ... }, ':')
end

-- Redis writes large numbers as 1e+15, which it does not read as integers.
local function whole(value)
  return string.format('%.0f', value)
end

local function from_now(seconds)
  return string.format('%.6f', now + tonumber(seconds))
end

---------------------------------------------------------------- entries

local function is_active(entry)
  return entry.state == 'begun' or entry.state == 'sent'
end

local function name_of_key(caller, key)
  return name('key', caller .. ' ' .. key) -- a key holds no space
end

local function read(id)
  local values = call('HMGET', name('entry', id), unpack(FIELDS))
  if not values[1] then
    return nil
  end
  local entry, was = {}, {}
  for place, field in ipairs(FIELDS) do
    entry[field], was[field] = values[place], values[place]
  end
  entry.was = was
  return entry
end

local function row(entry)
  local values = {}
  for place, field in ipairs(FIELDS) do
    values[place] = entry[field]
  end
  return values
end

local function rows_of(ids)
  local rows = {}
  for _, id in ipairs(ids) do
    local entry = read(id)
    rows[#rows + 1] = entry and row(entry)
  end
  return rows
end

local function add_to_active(entry)
  call('SADD', name('active', entry.owner), entry.id)
  call('SADD', name('owners'), entry.owner)
end

local function remove_from_active(entry)
  call('SREM', name('active', entry.owner), entry.id)
  if call('SCARD', name('active', entry.owner)) == 0 then
    call('SREM', name('owners'), entry.owner)
  end
end

local function add_to_tasks(entry)
  call('ZADD', name('tasks', entry.caller), entry.number, entry.id)
  call('SADD', name('tasks_in', entry.state), entry.id)
end

local function remove_from_tasks(entry)
  call('ZREM', name('tasks', entry.caller), entry.id)
  call('SREM', name('tasks_in', entry.state), entry.id)
end

-- Take an entry, as it was, out of where it is found.
local function unindex(was)
  if is_active(was) then
    remove_from_active(was)
  else
    call('ZREM', name('expiry'), was.id)
  end
  if was.is_task == '1' then
    remove_from_tasks(was)
  end
end

local function index(entry)
  if is_active(entry) then
    add_to_active(entry)
  else
    call('ZADD', name('expiry'), entry.expires_at, entry.id)
  end
  if entry.is_task == '1' then
    add_to_tasks(entry)
  end
end

-- Write what has changed of an entry, and where it is found: everything that is derived from it is derived here.
local function save(entry)
  local was, changed = entry.was or {}, {}
  for _, field in ipairs(FIELDS) do
    if entry[field] ~= was[field] then
      changed[#changed + 1] = field
      changed[#changed + 1] = entry[field]
    end
  end
  if #changed == 0 then
    return
  end
  call('HSET', name('entry', entry.id), unpack(changed))
  if entry.was then
    unindex(was)
  end
  index(entry)
end

local function free_key(entry)
  if entry.key ~= '' then
    call('DEL', name_of_key(entry.caller, entry.key))
    entry.key = ''
  end
end

local function forget(entry)
  free_key(entry)
  unindex(entry.was)
  call('DEL', name('entry', entry.id))
end

local function beat(owner)
  local last = tonumber(call('HGET', name('beats'), owner) or 0)
  call('HSET', name('beats'), owner, whole(math.max(last + 1, math.floor(now * 1000))))
end

local function ended(entry, state, result, expires_at)
  entry.state, entry.result, entry.expires_at = state, result, expires_at
  save(entry)
end

-- Return the task of that id, when it is the caller's and it is active, or is not.
local function task_of(id, caller, active)
  local entry = read(id)
  if entry and entry.caller == caller and entry.is_task == '1' and is_active(entry) == active then
    return entry
  end
end

---------------------------------------------------------------- what was spent

-- Howard Hinnant's days_from_civil, the other way round: https://howardhinnant.github.io/date_algorithms.html
local function first_day_of_month(day)
  local of_era = (day + 719468) % 146097
  local year = math.floor(
    (of_era - math.floor(of_era / 1460) + math.floor(of_era / 36524) - math.floor(of_era / 146096)) / 365
  )
  local of_year = of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local month = math.floor((5 * of_year + 2) / 153)
  return day - (of_year - math.floor((153 * month + 2) / 5))
end

local function today()
  return math.floor(now / DAY_SECONDS)
end

local function sum_since(key, first_day)
  local sum, values = 0, call('HGETALL', key)
  for place = 1, #values, 2 do
    if tonumber(values[place]) >= first_day then
      sum = sum + tonumber(values[place + 1])
    end
  end
  return sum
end

local function sum_up_old_days(spent)
  local first_day = today() - KEPT_DAYS
  for _, day in ipairs(call('HKEYS', spent)) do
    if day ~= EARLIER and tonumber(day) < first_day then
      call('HINCRBY', spent, EARLIER, call('HGET', spent, day))
      call('HDEL', spent, day)
    end
  end
end

local function add(caller, day, amount)
  local spent = name('spend', caller)
  call('HINCRBY', spent, day, amount)
  if call('HLEN', spent) > MOST_DAYS then
    sum_up_old_days(spent)
  end
end

local function change_reserved(caller, day, amount)
  if call('HINCRBY', name('reserved', caller), day, whole(amount)) <= 0 then
    call('HDEL', name('reserved', caller), day)
  end
end

local function open(owner, what)
  call('SADD', name('open', owner), what)
  call('SADD', name('spenders'), owner)
  beat(owner)
end

local function close(owner, what)
  call('SREM', name('open', owner), what)
  if call('SCARD', name('open', owner)) == 0 then
    call('SREM', name('spenders'), owner)
  end
end

local function read_reservation(id)
  local values = call('HMGET', name('reservation', id), 'owner', 'caller', 'day', 'nanodollars', 'is_presumed')
  if values[1] then
    return {
      id = id,
      owner = values[1],
      caller = values[2],
      day = values[3],
      amount = tonumber(values[4]),
      is_presumed = values[5] == '1',
    }
  end
end

-- It is no longer open: what it holds is settled, or presumed.
local function give_back(reservation)
  change_reserved(reservation.caller, reservation.day, -reservation.amount)
  close(reservation.owner, 'reservation ' .. reservation.id)
end

-- Return whether it is for an entry that its owner did not send: it is as it was begun, or another has taken it up.
local function is_unsent(reservation)
  local entry = read(string.sub(reservation.id, 1, 32))
  return entry
    and reservation.id == entry.id .. '-' .. reservation.owner
    and (entry.state == 'begun' or entry.owner ~= reservation.owner)
end

local function presume_reservation(id)
  local reservation = read_reservation(id)
  if not reservation then
    return 0
  end
  give_back(reservation)
  if is_unsent(reservation) then
    call('DEL', name('reservation', id))
    return 0
  end
  call('HSET', name('reservation', id), 'is_presumed', '1')
  call('EXPIRE', name('reservation', id), PRESUMED_SECONDS)
  add(reservation.caller, reservation.day, whole(reservation.amount))
  return 1
end

-- What was spent with a key in the window: a sorted set of "id amount" by the second, and its sum. Both are gone together.
local function spent_with(key)
  local spent, sum = name('key_spent', key), name('key_sum', key)
  local since = now - KEY_WINDOW_SECONDS
  for _, member in ipairs(call('ZRANGEBYSCORE', spent, '-inf', since)) do
    call('DECRBY', sum, string.match(member, ' (%d+)$'))
    call('ZREM', spent, member)
  end
  -- A clock that was set back would keep them for as long as it was ahead.
  for _, member in ipairs(call('ZRANGEBYSCORE', spent, '(' .. now, '+inf')) do
    call('ZADD', spent, from_now(0), member)
  end
  return tonumber(call('GET', sum) or 0)
end

local function seconds_until(key, missing)
  local found = call('ZRANGE', name('key_spent', key), 0, -1, 'WITHSCORES')
  for place = 1, #found, 2 do
    missing = missing - tonumber(string.match(found[place], ' (%d+)$'))
    if missing <= 0 then
      return math.max(0.001, found[place + 1] + KEY_WINDOW_SECONDS - now)
    end
  end
  return KEY_WINDOW_SECONDS
end

local function settle_room(id, amount)
  local key, owner, taken = unpack(call('HMGET', name('room', id), 'key', 'owner', 'nanodollars'))
  if not key then
    return
  end
  amount = amount or taken
  call('DEL', name('room', id))
  close(owner, 'room ' .. id)
  if call('DECRBY', name('key_open', key), taken) <= 0 then
    call('DEL', name('key_open', key))
  end
  if amount ~= '0' then
    call('ZADD', name('key_spent', key), from_now(0), id .. ' ' .. amount)
    call('INCRBY', name('key_sum', key), amount)
    for _, what in ipairs({ 'key_spent', 'key_sum' }) do
      call('EXPIRE', name(what, key), 2 * KEY_WINDOW_SECONDS)
    end
  end
end

---------------------------------------------------------------- operations

local operations = {}

function operations.begin(...)
  local entry = { is_presumed = '0' }
  for place, value in ipairs({ ... }) do
    entry[FIELDS[place]] = value
  end
  entry.expires_at = from_now(entry.expires_at)
  local holder = entry.key ~= '' and call('GET', name_of_key(entry.caller, entry.key))
  local held = holder and read(holder)
  if held and not is_active(held) and tonumber(held.expires_at) <= now then
    forget(held)
    held = nil
  end
  if held then
    if entry.is_task == '1' and held.fingerprint == entry.fingerprint and (is_active(held) or held.result ~= '') then
      held.is_task = '1'
      save(held)
    end
    return row(held)
  end
  if entry.key ~= '' then
    call('SET', name_of_key(entry.caller, entry.key), entry.id)
  end
  entry.number = whole(call('INCR', name('numbers')))
  save(entry)
  beat(entry.owner)
  return row(entry)
end

function operations.find(caller, key)
  local holder = call('GET', name_of_key(caller, key))
  local entry = holder and read(holder)
  return entry and row(entry)
end

function operations.get(...)
  return rows_of({ ... })
end

function operations.tasks(caller, limit, after)
  local below = '+inf'
  if after then
    local last = call('ZSCORE', name('tasks', caller), after)
    if not last then
      return false
    end
    below = '(' .. last
  end
  local ids = call('ZREVRANGEBYSCORE', name('tasks', caller), below, '-inf', 'LIMIT', 0, limit)
  return rows_of(ids)
end

function operations.mark_sent(id, owner)
  local entry = read(id)
  if not entry or entry.owner ~= owner or not is_active(entry) then
    return 0
  end
  entry.state = 'sent'
  save(entry)
  return 1
end

function operations.settle(id, owner, state, result, expires_in, released_in)
  local entry = read(id)
  if not entry or entry.owner ~= owner or not (is_active(entry) or entry.is_presumed == '1') then
    return 0
  end
  if released_in then
    free_key(entry)
  end
  entry.is_presumed = '0'
  ended(entry, state, result, from_now(entry.is_task == '1' and expires_in or released_in or expires_in))
  return 1
end

function operations.presume(id, owner, state, result, expires_in)
  local entry = read(id)
  if not entry or entry.owner ~= owner or entry.state ~= 'sent' then
    return 0
  end
  entry.is_presumed = '1'
  ended(entry, state, result, from_now(expires_in))
  return 1
end

function operations.discard(id, owner)
  local entry = read(id)
  if entry and entry.owner == owner and entry.state == 'begun' then
    forget(entry)
  end
end

function operations.cancel(id, caller, result, expires_in)
  local entry = task_of(id, caller, true)
  if is_repeat and not entry then
    entry = task_of(id, caller, false)
    return entry and entry.state == 'cancelled' and row(entry)
  end
  if not entry then
    return false
  end
  local before = row(entry)
  if entry.state == 'begun' then
    free_key(entry)
  end
  ended(entry, 'cancelled', result, from_now(expires_in))
  return before
end

function operations.delete(id, caller)
  local entry = task_of(id, caller, false)
  if not entry then
    return false
  end
  local before = row(entry)
  if entry.key == '' then
    forget(entry)
  else
    entry.is_task, entry.result = '0', ''
    save(entry)
  end
  return before
end

function operations.beat(owner)
  beat(owner)
end

function operations.beats()
  return call('HGETALL', name('beats'))
end

function operations.owners()
  return call('SMEMBERS', name('owners'))
end

function operations.active(owner)
  return rows_of(call('SMEMBERS', name('active', owner)))
end

function operations.take_up(id, old_owner, new_owner)
  local entry = read(id)
  if not entry or entry.owner ~= old_owner or entry.state ~= 'begun' then
    return 0
  end
  entry.owner = new_owner
  save(entry)
  beat(new_owner)
  return 1
end

-- Forget at most `limit` entries that have expired; return how many, so that others come in between.
function operations.sweep(limit)
  local ids = call('ZRANGEBYSCORE', name('expiry'), '-inf', now, 'LIMIT', 0, limit)
  for _, id in ipairs(ids) do
    local entry = read(id)
    if entry then
      forget(entry)
    else
      call('ZREM', name('expiry'), id)
    end
  end
  for _, owner in ipairs(call('HKEYS', name('beats'))) do
    if call('SISMEMBER', name('owners'), owner) + call('SISMEMBER', name('spenders'), owner) == 0 then
      call('HDEL', name('beats'), owner)
    end
  end
  return #ids
end

function operations.count_tasks()
  local counts = {}
  for _, state in ipairs(STATES) do
    counts[#counts + 1] = state
    counts[#counts + 1] = call('SCARD', name('tasks_in', state))
  end
  return counts
end

function operations.secret(own)
  call('SET', name('secret'), own, 'NX')
  return call('GET', name('secret'))
end

-- Return the version of what is here; `version` where there is nothing yet.
function operations.check(version)
  call('SET', name('version'), version, 'NX')
  return call('GET', name('version'))
end

function operations.reserve(id, owner, caller, amount, limit, window)
  if read_reservation(id) then
    return 1
  end
  local day = today()
  local first_day = window == 'day' and day or first_day_of_month(day)
  local within = sum_since(name('spend', caller), first_day) + sum_since(name('reserved', caller), first_day)
  if within + amount > tonumber(limit) then
    return 0
  end
  local fields = { 'owner', owner, 'caller', caller, 'day', whole(day), 'nanodollars', amount, 'is_presumed', '0' }
  call('HSET', name('reservation', id), unpack(fields))
  change_reserved(caller, whole(day), amount)
  open(owner, 'reservation ' .. id)
  return 1
end

function operations.settle_reservation(id, amount)
  local reservation = read_reservation(id)
  if not reservation then
    return
  end
  local charged = reservation.is_presumed and reservation.amount or 0
  if not reservation.is_presumed then
    give_back(reservation)
  end
  call('DEL', name('reservation', id))
  if amount ~= whole(charged) then
    add(reservation.caller, reservation.day, whole(amount - charged))
  end
end

function operations.add(...)
  local spent = { ... }
  for place = 1, #spent, 3 do
    add(spent[place], spent[place + 1], spent[place + 2])
  end
end

-- Return the day, what was spent by day, and what is reserved by day.
function operations.spent(caller)
  return { today(), call('HGETALL', name('spend', caller)), call('HGETALL', name('reserved', caller)) }
end

function operations.take_room(id, owner, key, amount, limit)
  if call('EXISTS', name('room', id)) == 1 then
    return '0'
  end
  local missing = spent_with(key) + tonumber(call('GET', name('key_open', key)) or 0) + amount - limit
  if missing > 0 then
    return string.format('%.6f', seconds_until(key, missing))
  end
  call('HSET', name('room', id), 'key', key, 'owner', owner, 'nanodollars', amount)
  call('INCRBY', name('key_open', key), amount)
  open(owner, 'room ' .. id)
  return '0'
end

function operations.settle_room(id, amount)
  settle_room(id, amount)
end

function operations.spenders()
  return call('SMEMBERS', name('spenders'))
end

function operations.lapse(owner)
  local charged = 0
  for _, what in ipairs(call('SMEMBERS', name('open', owner))) do
    local kind, id = string.match(what, '^(%a+) (.+)$')
    if kind == 'room' then
      settle_room(id)
    else
      charged = charged + presume_reservation(id)
    end
  end
  -- Also what is not there any more.
  call('DEL', name('open', owner))
  call('SREM', name('spenders'), owner)
  return charged
end

---------------------------------------------------------------- the run

-- A change that was held up on the way, and given up by its sender, must not happen after what its sender did next. The
-- same number again is the same change, whose reply was lost: each can be carried out twice, but for adding.
if number > 0 then
  local last = tonumber(call('GET', name('session', session)) or 0)
  if number < last then
    return redis.error_reply('LATE a later change of this worker was made before')
  end
  is_repeat = number == last
  if is_repeat and operation == 'add' then
    return
  end
  call('SET', name('session', session), number, 'EX', SESSION_SECONDS)
end
return operations[operation](unpack(given))
