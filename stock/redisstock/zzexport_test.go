package redisstock
func Source() string { return poolLua + reserveLua }
func Args(s *Store, sku string) []any { return []any{0, 0, "0", 1000000, 86400000, 256, "0", 1, "", 1, 0, 0, "1,0,0;"} }
