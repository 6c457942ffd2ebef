package pg

// The SQLSTATEs that Rangefinder raises or looks for, under the names of PostgreSQL's errcodes.txt.
const (
	// Class 08: the connection.
	CodeConnectionException          = "08000"
	CodeCannotEstablishConnection    = "08001" // sqlclient_unable_to_establish_sqlconnection
	CodeConnectionDoesNotExist       = "08003"
	CodeConnectionFailure            = "08006"
	CodeTransactionResolutionUnknown = "08007" // a write was sent and its fate is unknown
	CodeProtocolViolation            = "08P01"

	// Class 0A: what we do not do.
	CodeFeatureNotSupported = "0A000"

	// Class 22: values.
	CodeNumericValueOutOfRange      = "22003"
	CodeNullValueNotAllowed         = "22004"
	CodeCheckViolation              = "23514"
	CodeDatetimeFieldOverflow       = "22008"
	CodeCharacterNotInRepertoire    = "22021"
	CodeInvalidParameterValue       = "22023"
	CodeInvalidTextRepresentation   = "22P02"
	CodeInvalidBinaryRepresentation = "22P03"
	CodeUntranslatableCharacter     = "22P05"

	// Class 25: transactions.
	CodeInvalidTransactionState         = "25000"
	CodeActiveTransaction               = "25001"
	CodeReadOnlyTransaction             = "25006" // read_only_sql_transaction
	CodeNoActiveTransaction             = "25P01"
	CodeInFailedTransaction             = "25P02"
	CodeIdleInTransactionSessionTimeout = "25P03"

	// Class 26, 28, 34, 3D, 3F: names and who may use them.
	CodeInvalidStatementName  = "26000"
	CodeInvalidAuthorization  = "28000"
	CodeInvalidPassword       = "28P01"
	CodeInvalidCursorName     = "34000"
	CodeInvalidSavepoint      = "3B001"
	CodeInvalidCatalogName    = "3D000" // no such database
	CodeInvalidSchemaName     = "3F000"
	CodeInsufficientPrivilege = "42501"

	// Class 40: transactions that were rolled back.
	CodeTransactionRollback        = "40000"
	CodeSerializationFailure       = "40001"
	CodeStatementCompletionUnknown = "40003"
	CodeDeadlockDetected           = "40P01"

	// Class 42: statements.
	CodeSyntaxError           = "42601"
	CodeAmbiguousColumn       = "42702"
	CodeUndefinedColumn       = "42703"
	CodeUndefinedFunction     = "42883"
	CodeUndefinedObject       = "42704"
	CodeDatatypeMismatch      = "42804"
	CodeUndefinedTable        = "42P01"
	CodeUndefinedParameter    = "42P02"
	CodeDuplicateCursor       = "42P03"
	CodeDuplicateStatement    = "42P05" // duplicate_prepared_statement
	CodeIndeterminateDatatype = "42P18"

	// Class 53, 54: resources and limits.
	CodeInsufficientResources      = "53000"
	CodeOutOfMemory                = "53200"
	CodeTooManyConnections         = "53300"
	CodeConfigurationLimitExceeded = "53400"
	CodeProgramLimitExceeded       = "54000"
	CodeStatementTooComplex        = "54001"

	// Class 55, 57: operators and state.
	CodeObjectInUse                  = "55006"
	CodeObjectNotInPrerequisiteState = "55000"
	CodeQueryCanceled                = "57014"
	CodeAdminShutdown                = "57P01"
	CodeCrashShutdown                = "57P02"
	CodeCannotConnectNow             = "57P03"
	CodeIdleSessionTimeout           = "57P05"

	// Class 58, F0, XX: trouble.
	CodeSystemError     = "58000"
	CodeConfigFileError = "F0000"
	CodeInternalError   = "XX000"
	CodeDataCorrupted   = "XX001"
	CodeIndexCorrupted  = "XX002"

	// Class RF: ours.
	CodeRangeFenced = "RF001" // a shard's fence refused a write to a range that is moving or has moved
)

// OfServer tells whether an error is about the server (it is lost, ends, lacks memory or disk, finds its data damaged) and not about the
// statement. Code that a client runs can raise these too.
func OfServer(code string) bool {
	if len(code) != 5 {
		return false
	}
	switch code[:2] {
	case "08", "53", "58":
		return true
	}
	switch code {
	case CodeAdminShutdown, CodeCrashShutdown, CodeCannotConnectNow, CodeDataCorrupted, CodeIndexCorrupted:
		return true
	}
	return false
}
