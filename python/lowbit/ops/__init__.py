"""The ops: each file gives one op's schema, rules, reference and public function."""
