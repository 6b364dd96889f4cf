-- Put a new session on record. KEYS: the session. ARGV: seconds until the record ends; then names and values.
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
redis.call('EXPIRE', KEYS[1], ARGV[1])
