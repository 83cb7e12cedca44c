package syntax

import "math/big"

// Name is a name at a place.
type Name struct {
	Text string
	Pos  Pos
}

// Annotation is @name or @name(...); the tokens between the parentheses are kept as they are.
type Annotation struct {
	Name Name
	Body []Token
}

// Annotations are those of one declaration.
type Annotations []Annotation

// Text is the string that annotation name carries, "" without.
func (as Annotations) Text(name string) string {
	for _, a := range as {
		if a.Name.Text == name && len(a.Body) == 1 && a.Body[0].Kind == String {
			return a.Body[0].Text
		}
	}
	return ""
}

// Expr is an expression. A type is one too, since a type may stand where an expression may, as in error.NoMatch.
type Expr interface{ At() Pos }

// Place is where a node of the tree stands.
type Place struct{ Pos Pos }

// At gives the place.
func (p Place) At() Pos { return p.Pos }

// The expressions.
type (
	// Bad stands where an expression could not be read; the finding about it is already made.
	Bad struct{ Place }
	// IdentExpr is a name; Global says that a dot stands before it.
	IdentExpr struct {
		Place
		Name   string
		Global bool
	}
	// IntExpr is a number.
	IntExpr struct {
		Place
		Value  *big.Int
		Width  int
		Signed bool
	}
	// BoolExpr is true or false.
	BoolExpr struct {
		Place
		Value bool
	}
	// StringExpr is a string.
	StringExpr struct {
		Place
		Value string
	}
	// MemberExpr is X.Name.
	MemberExpr struct {
		Place
		X    Expr
		Name Name
	}
	// IndexExpr is X[I].
	IndexExpr struct {
		Place
		X, I Expr
	}
	// SliceExpr is X[Hi:Lo].
	SliceExpr struct {
		Place
		X, Hi, Lo Expr
	}
	// PlusSliceExpr is X[From+:Width].
	PlusSliceExpr struct {
		Place
		X, From, Width Expr
	}
	// UnaryExpr is an operator and its operand.
	UnaryExpr struct {
		Place
		Op string
		X  Expr
	}
	// BinaryExpr is an operator between its operands; &&& and .. are operators too.
	BinaryExpr struct {
		Place
		Op   string
		X, Y Expr
	}
	// CondExpr is C ? X : Y.
	CondExpr struct {
		Place
		C, X, Y Expr
	}
	// CastExpr is (Type) X.
	CastExpr struct {
		Place
		Type Type
		X    Expr
	}
	// CallExpr is Fun<TypeArgs>(Args).
	CallExpr struct {
		Place
		Fun      Expr
		TypeArgs []Type
		Args     []Arg
	}
	// ListExpr is { ... }; the elements have names if it is { a = 1, ... }.
	ListExpr struct {
		Place
		Elems []Arg
	}
	// TypeExpr is a type where an expression stands.
	TypeExpr struct {
		Place
		Type Type
	}
	// InvalidExpr is {#}, a header that is not valid.
	InvalidExpr struct{ Place }
	// AnyExpr is "_" or "default".
	AnyExpr struct{ Place }
)

// Arg is an argument, with a name if it has been given by name.
type Arg struct {
	Name  Name
	Value Expr
}

// Type is a type as it is written.
type Type interface{ At() Pos }

// The types.
type (
	// NamedType is a name, with arguments if it is generic.
	NamedType struct {
		Place
		Name   string
		Global bool
		Args   []Type
	}
	// BitType is bit<W>, int<W> or varbit<W>; int without a width has a nil Width.
	BitType struct {
		Place
		Base  string
		Width Expr
	}
	// BaseType is bool, error, string, void, match_kind or "_".
	BaseType struct {
		Place
		Name string
	}
	// StackType is T[N].
	StackType struct {
		Place
		Elem Type
		Size Expr
	}
	// TupleType is tuple<...> or list<...>.
	TupleType struct {
		Place
		Elems []Type
		List  bool
	}
)

// Param is a parameter. Dir is "", "in", "out" or "inout".
type Param struct {
	Place
	Dir     string
	Type    Type
	Name    string
	Default Expr
}

// Decl is a declaration.
type Decl interface {
	At() Pos
	DeclName() string
}

// DeclBase is what all declarations have.
type DeclBase struct {
	Place
	Name  string
	Annos Annotations
}

// DeclName gives the declared name.
func (d *DeclBase) DeclName() string { return d.Name }

// Field is a field of a header, a struct or a union.
type Field struct {
	Name  Name
	Type  Type
	Annos Annotations
}

// The declarations.
type (
	// ConstDecl is const T name = value.
	ConstDecl struct {
		DeclBase
		Type  Type
		Value Expr
	}
	// VarDecl is a variable, with a value or without.
	VarDecl struct {
		DeclBase
		Type  Type
		Value Expr
	}
	// InstanceDecl is T(args) name.
	InstanceDecl struct {
		DeclBase
		Type Type
		Args []Arg
		// Body says that a block of functions follows, which makes it an instance of an abstract extern.
		Body bool
	}
	// FieldsDecl is a header, struct or header_union, as Kind says.
	FieldsDecl struct {
		DeclBase
		Kind   string
		Params []Name
		Fields []Field
	}
	// EnumDecl is an enum; Type is not nil for one with values.
	EnumDecl struct {
		DeclBase
		Type    Type
		Members []EnumMember
	}
	// ErrorDecl is error { ... } or match_kind { ... }.
	ErrorDecl struct {
		DeclBase
		MatchKind bool
		Members   []Name
	}
	// TypedefDecl is typedef T name or type T name.
	TypedefDecl struct {
		DeclBase
		Type Type
		New  bool
	}
	// ExternDecl is an extern object.
	ExternDecl struct {
		DeclBase
		Params  []Name
		Methods []*FuncDecl
	}
	// FuncDecl is a function: one with a body, an extern one without, or a method of an extern.
	FuncDecl struct {
		DeclBase
		Extern     bool
		TypeParams []Name
		Result     Type
		Params     []Param
		Body       *Block
	}
	// ActionDecl is an action.
	ActionDecl struct {
		DeclBase
		TypeParams []Name
		Params     []Param
		Body       *Block
	}
	// ParserDecl is a parser, or the type of one if it has no body.
	ParserDecl struct {
		DeclBase
		TypeParams []Name
		Params     []Param
		Ctor       []Param
		HasBody    bool
		Locals     []Decl
		States     []*StateDecl
	}
	// StateDecl is a state of a parser.
	StateDecl struct {
		DeclBase
		Body *Block
	}
	// ControlDecl is a control, or the type of one if it has no body.
	ControlDecl struct {
		DeclBase
		TypeParams []Name
		Params     []Param
		Ctor       []Param
		HasBody    bool
		Locals     []Decl
		Body       *Block
	}
	// PackageDecl is the type of a package.
	PackageDecl struct {
		DeclBase
		TypeParams []Name
		Params     []Param
	}
	// ValueSetDecl is value_set<T>(size) name.
	ValueSetDecl struct {
		DeclBase
		Type Type
		Size Expr
	}
	// TableDecl is a table.
	TableDecl struct {
		DeclBase
		Keys    []KeyElem
		Actions []ActionRef
		Props   []TableProp
		// HasKeys and HasActions tell an empty list from none.
		HasKeys, HasActions      bool
		Entries                  []TableEntry
		HasEntries, ConstEntries bool
		EntriesPos               Pos
		// EntriesFirst says that the entries stand before the key, which is not allowed.
		EntriesFirst bool
		Default      *ActionRef
		ConstDefault bool
	}
)

// EnumMember is a member of an enum; Value is nil without one.
type EnumMember struct {
	Name  Name
	Value Expr
}

// KeyElem is one element of the key of a table.
type KeyElem struct {
	Expr  Expr
	Match Name
	Annos Annotations
}

// ActionRef names an action, with arguments if Call.
type ActionRef struct {
	Place
	Name     string
	TypeArgs []Type
	Call     bool
	Args     []Arg
	Annos    Annotations
}

// TableEntry is an entry that the program itself puts in a table.
type TableEntry struct {
	Place
	Keys     []Expr
	Action   ActionRef
	Priority Expr
	Const    bool
	Annos    Annotations
}

// TableProp is a property of a table that has no syntax of its own.
type TableProp struct {
	Name  Name
	Value Expr
	Const bool
}

// Stmt is a statement.
type Stmt interface{ At() Pos }

// The statements.
type (
	// Block is { ... }.
	Block struct {
		Place
		Stmts []Stmt
	}
	// DeclStmt is a declaration among statements.
	DeclStmt struct {
		Place
		Decl Decl
	}
	// AssignStmt is X = Y, or X op= Y with Op.
	AssignStmt struct {
		Place
		Op   string
		X, Y Expr
	}
	// CallStmt is a call.
	CallStmt struct {
		Place
		Call Expr
	}
	// IfStmt is if (C) Then else Else.
	IfStmt struct {
		Place
		C          Expr
		Then, Else Stmt
	}
	// ForStmt is for (Init; C; Update) Body.
	ForStmt struct {
		Place
		Init   []Stmt
		C      Expr
		Update []Stmt
		Body   Stmt
	}
	// ForInStmt is for (Type Name in X) Body, or for (Type Name in X .. To) Body.
	ForInStmt struct {
		Place
		Type  Type
		Name  Name
		X, To Expr
		Body  Stmt
	}
	// BreakStmt is break, or continue with Continue.
	BreakStmt struct {
		Place
		Continue bool
	}
	// ReturnStmt is return X.
	ReturnStmt struct {
		Place
		X Expr
	}
	// ExitStmt is exit.
	ExitStmt struct{ Place }
	// EmptyStmt is ";".
	EmptyStmt struct{ Place }
	// SwitchStmt is switch (X) { ... }.
	SwitchStmt struct {
		Place
		X     Expr
		Cases []SwitchCase
	}
	// TransitionStmt is transition Next, or transition select (Select) { Cases }.
	TransitionStmt struct {
		Place
		Next   Name
		Select []Expr
		Cases  []SelectCase
	}
)

// SwitchCase is one label of a switch; a nil Body falls through to the next one.
type SwitchCase struct {
	Place
	Label Expr
	Body  *Block
}

// SelectCase is one line of a select.
type SelectCase struct {
	Place
	Keys []Expr
	Next Name
}
