package rib

// MethodSchema is the method of keyspaces whose key is the name of a schema: each schema that is listed, with all that is in it, is on one
// shard. Such a keyspace lists no tables. It is a list in all else.
const MethodSchema = "schema"

type schemaMethod struct{ listMethod }

func (*schemaMethod) Name() string { return MethodSchema }

// BySchema tells whether the keyspace's key is the name of a schema.
func (k *Keyspace) BySchema() bool { return k.Method == MethodSchema }

// Listed tells whether the keyspace lists values, each with its shard: it is of the list method, or by schema.
func (k *Keyspace) Listed() bool { return k.Method == "list" || k.BySchema() }

// Schemas are the listed schemas of a keyspace by schema, in the order of their keys, and the shards that have them.
func (k *Keyspace) Schemas() (schemas, shards []string) {
	m := &schemaMethod{}
	for i := 1; i < len(k.Ranges); i += 2 {
		values, _, err := m.bound(k.Types, k.Ranges[i].From)
		if err == nil && len(values) == 1 {
			schemas, shards = append(schemas, string(values[0].Bytes)), append(shards, k.Ranges[i].Shard)
		}
	}
	return schemas, shards
}

// Others is the shard of all values that a list does not name; "" if they have none, or if it is no list.
func (k *Keyspace) Others() string {
	if !k.Listed() || len(k.Ranges) == 0 {
		return ""
	}
	return k.Ranges[0].Shard
}

// validateSchemas holds a keyspace by schema against what it is.
func (k *Keyspace) validateSchemas(fail func(string, ...any) error) error {
	if len(k.Types) != 1 || k.Types[0] != TypeText || len(k.Tables) > 0 {
		return fail("the key of a keyspace by schema is one text, the schema's name, and it lists no tables")
	}
	schemas, _ := k.Schemas()
	for _, s := range schemas {
		if s == "pg_catalog" || s == "information_schema" || len(s) > 63 || s == "" {
			return fail("schema %.64q cannot be given to a shard", s)
		}
	}
	return nil
}
