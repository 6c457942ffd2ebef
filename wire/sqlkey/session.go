package sqlkey

import (
	"strconv"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"rangefinder/wire/pg"
)

// transaction plans BEGIN, COMMIT and their like.
func (c *compiler) transaction(s *pgquery.TransactionStmt) *Plan {
	p := &Plan{Target: Any, Intent: Write, Reason: "a transaction statement", Chain: s.GetChain()}
	switch s.GetKind() {
	case pgquery.TransactionStmtKind_TRANS_STMT_BEGIN, pgquery.TransactionStmtKind_TRANS_STMT_START:
		p.Tx, p.Tag = TxBegin, "BEGIN"
		if s.GetKind() == pgquery.TransactionStmtKind_TRANS_STMT_START {
			p.Tag = "START TRANSACTION"
		}
		p.characteristics(s.GetOptions())
	case pgquery.TransactionStmtKind_TRANS_STMT_COMMIT:
		p.Tx, p.Tag = TxCommit, "COMMIT"
	case pgquery.TransactionStmtKind_TRANS_STMT_ROLLBACK:
		p.Tx, p.Tag = TxRollback, "ROLLBACK"
	case pgquery.TransactionStmtKind_TRANS_STMT_SAVEPOINT:
		p.Tx, p.Tag = TxSavepoint, "SAVEPOINT"
	case pgquery.TransactionStmtKind_TRANS_STMT_RELEASE:
		p.Tx, p.Tag = TxRelease, "RELEASE"
	case pgquery.TransactionStmtKind_TRANS_STMT_ROLLBACK_TO:
		p.Tx, p.Tag = TxRollbackTo, "ROLLBACK"
	default: // PREPARE TRANSACTION, COMMIT PREPARED, ROLLBACK PREPARED
		p.Tx, p.Target = TxPrepare, None
		p.Reason = "a client's own two-phase transactions are not routed"
		p.Err = pg.NewError(pg.CodeFeatureNotSupported, "two-phase transactions cannot be used through the router").
			WithDetail("A prepared transaction lives on one shard, and later statements could not tell which.").
			WithHint("Use COMMIT; to settle a prepared transaction, connect to the shard's primary.")
	}
	p.WhyWrite = "a transaction statement"
	p.Savepoint = s.GetSavepointName()
	return p
}

// characteristics takes the options of BEGIN and SET TRANSACTION.
func (p *Plan) characteristics(options []*pgquery.Node) {
	for _, o := range options {
		arg := o.GetDefElem().GetArg().GetAConst()
		switch o.GetDefElem().GetDefname() {
		case "transaction_read_only":
			p.TxReadOnly = arg.GetIval().GetIval() != 0
			p.TxReadWrite = !p.TxReadOnly
		case "transaction_isolation":
			p.Isolation = arg.GetSval().GetSval()
		case "transaction_deferrable":
			p.TxDeferrable = true
		}
	}
}

// set plans SET and RESET.
func (c *compiler) set(s *pgquery.VariableSetStmt) *Plan {
	p := &Plan{Target: Any, Intent: Write, WhyWrite: "SET", Reason: "a session statement", Session: SessSet, Setting: strings.ToLower(s.GetName())}
	switch s.GetKind() {
	case pgquery.VariableSetKind_VAR_RESET_ALL:
		p.Session, p.Setting, p.Default, p.WhyWrite = SessReset, "RESET ALL", true, "RESET"
		return p
	case pgquery.VariableSetKind_VAR_RESET:
		p.Default, p.WhyWrite = true, "RESET"
	case pgquery.VariableSetKind_VAR_SET_DEFAULT:
		p.Default = true
	case pgquery.VariableSetKind_VAR_SET_VALUE:
		p.Value = settingValue(p.Setting, s.GetArgs())
	case pgquery.VariableSetKind_VAR_SET_MULTI:
		p.characteristics(s.GetArgs())
		if p.Setting != "session characteristics" { // TRANSACTION, TRANSACTION SNAPSHOT
			p.Snapshot = p.Setting == "transaction snapshot"
			p.Session, p.Tx, p.Tag, p.Setting = SessNone, TxSet, "SET", ""
			return p
		}
		// It sets the default_transaction_ parameters, for the transactions to come.
		p.Setting, p.Sets, p.SetsOnly = "", defaultsOf(s.GetArgs()), true
		return p
	}
	if IsOwn(p.Setting) {
		return p.setOwn(s.GetIsLocal())
	}
	if s.GetIsLocal() || p.ofTransaction() {
		p.Session, p.Tx, p.Tag = SessNone, TxSet, "SET"
	}
	return p
}

// ofTransaction tells whether SET of a parameter concerns the transaction whatever it says, and follows it.
func (p *Plan) ofTransaction() bool {
	switch p.Setting {
	case "transaction_isolation":
		p.Isolation = strings.ToLower(p.Value)
	case "transaction_read_only":
		p.TxReadOnly, _ = ParseBool(p.Value)
		p.TxReadWrite = !p.TxReadOnly
	case "transaction_deferrable":
		p.TxDeferrable = true
	default:
		return false
	}
	return true
}

// defaultsOf are what SET SESSION CHARACTERISTICS sets.
func defaultsOf(options []*pgquery.Node) (list []Assignment) {
	for _, o := range options {
		d := o.GetDefElem()
		value := d.GetArg().GetAConst().GetSval().GetSval()
		if value == "" {
			value = "off"
			if d.GetArg().GetAConst().GetIval().GetIval() != 0 {
				value = "on"
			}
		}
		list = append(list, Assignment{Name: "default_" + d.GetDefname(), Value: value})
	}
	return list
}

// settingValue writes the arguments of SET as flatten_set_variable_args does.
func settingValue(setting string, args []*pgquery.Node) string {
	list := isOneOf(setting, "search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries")
	var words []string
	for _, n := range args {
		if t := n.GetTypeCast(); t != nil { // SET TIME ZONE INTERVAL '...'
			n = t.GetArg()
		}
		switch v := n.GetAConst().GetVal().(type) {
		case *pgquery.A_Const_Ival:
			words = append(words, strconv.Itoa(int(v.Ival.GetIval())))
		case *pgquery.A_Const_Fval:
			words = append(words, v.Fval.GetFval())
		case *pgquery.A_Const_Sval:
			if list {
				words = append(words, quoteName(v.Sval.GetSval()))
			} else {
				words = append(words, v.Sval.GetSval())
			}
		}
	}
	return strings.Join(words, ", ")
}

func discard(s *pgquery.DiscardStmt) *Plan {
	p := &Plan{Target: Any, Intent: Write, WhyWrite: "DISCARD", Reason: "a session statement"}
	if s.GetTarget() == pgquery.DiscardMode_DISCARD_ALL {
		p.Session, p.Setting, p.Default = SessReset, "DISCARD ALL", true
	}
	p.Frees = true
	return p
}
