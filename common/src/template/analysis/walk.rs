//! A walk over minijinja's syntax tree. That tree is not covered by the crate's promise of stability (feature
//! `unstable_machinery`); all use of it is in this file and its parent.

use super::Refs;
use crate::template::env::environment;
use minijinja::{
    ErrorKind,
    machinery::{
        Span,
        ast::{Call, CallArg, Expr, Macro, Stmt},
    },
};
use std::{collections::HashSet, ops::Range};

/// A name that a template takes from its context, with the fields that it looks up in it: `params.country`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) root: String,
    pub(crate) fields: Vec<String>,
    /// A field follows whose name is only known when rendered.
    pub(crate) dynamic: bool,
    /// The last field is called: it is a method.
    pub(crate) called: bool,
    /// Where it stands in the text, in bytes.
    pub(crate) at: Range<usize>,
}

/// A constant task id in a `ti.xcom_pull`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pull {
    pub(crate) task_id: String,
    /// `None`: only known when rendered.
    pub(crate) key: Option<String>,
    /// Where the task id's literal, with its quotes, stands in the text, in bytes.
    pub(crate) at: Range<usize>,
}

/// What a template refers to.
#[derive(Debug, Default)]
pub(crate) struct Analysis {
    pub(crate) references: Vec<Reference>,
    pub(crate) pulls: Vec<Pull>,
    pub(crate) dynamic_pull: bool,
    /// What would fail for certain when rendered, and where.
    pub(crate) problems: Vec<(String, usize)>,
    /// Names that the template itself defines, by scope.
    scopes: Vec<HashSet<String>>,
}

fn range(span: Span) -> Range<usize> {
    span.start_offset as usize..span.end_offset as usize
}

/// Whether a template is one expression and nothing else.
pub(super) fn is_one_expression(tree: &Stmt<'_>) -> bool {
    matches!(tree, Stmt::Template(template) if matches!(template.children[..], [Stmt::EmitExpr(_)]))
}

impl Analysis {
    pub(super) fn new(known: &[&str]) -> Self {
        let globals = environment().globals().map(|(name, _)| name.to_owned());
        let known = known.iter().map(|name| (*name).to_owned());
        Self {
            scopes: vec![globals.chain(known).collect()],
            ..Self::default()
        }
    }

    pub(super) fn refs(&self) -> Refs {
        let mut refs = Refs {
            dynamic_pull: self.dynamic_pull,
            ..Refs::default()
        };
        for pull in &self.pulls {
            match &pull.key {
                Some(key) => drop(refs.xcom_pulls.insert((pull.task_id.clone(), key.clone()))),
                None => refs.dynamic_pull = true,
            }
        }
        for reference in &self.references {
            let fields: Vec<&str> = reference.fields.iter().map(String::as_str).collect();
            match (reference.root.as_str(), fields.as_slice()) {
                ("var", ["value" | "json", "get"]) if reference.called => refs.dynamic_vars = true,
                ("var", ["value" | "json", name, ..]) => drop(refs.vars.insert((*name).to_owned())),
                ("var", _) => refs.dynamic_vars = true,
                ("conn", ["get"]) if reference.called => refs.dynamic_conns = true,
                ("conn", [id, ..]) => drop(refs.conns.insert((*id).to_owned())),
                ("conn", _) => refs.dynamic_conns = true,
                // The task instance itself is handed on: what becomes of it cannot be seen.
                ("ti" | "task_instance", []) => refs.dynamic_pull = true,
                _ => {}
            }
        }
        refs
    }

    fn define(&mut self, target: &Expr<'_>) {
        match target {
            Expr::Var(var) => self.define_name(var.id),
            Expr::List(list) => list.items.iter().for_each(|item| self.define(item)),
            Expr::Tuple(tuple) => tuple.items.iter().for_each(|item| self.define(item)),
            other => self.expression(other),
        }
    }

    fn define_name(&mut self, name: &str) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name.to_owned());
        }
    }

    fn scoped(&mut self, f: impl FnOnce(&mut Self)) {
        self.scopes.push(HashSet::new());
        f(self);
        self.scopes.pop();
    }

    fn statements(&mut self, statements: &[Stmt<'_>]) {
        statements
            .iter()
            .for_each(|statement| self.statement(statement));
    }

    pub(super) fn statement(&mut self, statement: &Stmt<'_>) {
        match statement {
            Stmt::Template(t) => self.statements(&t.children),
            Stmt::EmitExpr(e) => self.expression(&e.expr),
            Stmt::EmitRaw(_) => {}
            Stmt::ForLoop(f) => {
                self.expression(&f.iter);
                self.scoped(|this| {
                    this.define(&f.target);
                    this.define_name("loop");
                    f.filter_expr.iter().for_each(|e| this.expression(e));
                    this.statements(&f.body);
                });
                self.scoped(|this| this.statements(&f.else_body));
            }
            Stmt::IfCond(i) => {
                self.expression(&i.expr);
                self.statements(&i.true_body);
                self.statements(&i.false_body);
            }
            Stmt::WithBlock(w) => self.scoped(|this| {
                for (target, value) in &w.assignments {
                    this.expression(value);
                    this.define(target);
                }
                this.statements(&w.body);
            }),
            Stmt::Set(s) => {
                self.expression(&s.expr);
                self.define(&s.target);
            }
            Stmt::SetBlock(s) => {
                s.filter.iter().for_each(|e| self.expression(e));
                self.scoped(|this| this.statements(&s.body));
                self.define(&s.target);
            }
            Stmt::AutoEscape(a) => {
                self.expression(&a.enabled);
                self.statements(&a.body);
            }
            Stmt::FilterBlock(f) => {
                self.expression(&f.filter);
                self.statements(&f.body);
            }
            Stmt::Block(b) => self.scoped(|this| this.statements(&b.body)),
            Stmt::Import(s) => self.elsewhere("import", s.span()),
            Stmt::FromImport(s) => self.elsewhere("from … import", s.span()),
            Stmt::Extends(s) => self.elsewhere("extends", s.span()),
            Stmt::Include(s) => self.elsewhere("include", s.span()),
            Stmt::Macro(m) => {
                self.define_name(m.name);
                self.macro_body(m);
            }
            Stmt::CallBlock(c) => {
                self.call(&c.call);
                self.macro_body(&c.macro_decl);
            }
            Stmt::Do(d) => self.call(&d.call),
        }
    }

    fn elsewhere(&mut self, tag: &str, span: Span) {
        let problem = format!("{{% {tag} %}} cannot be used: a template stands alone");
        self.problems.push((problem, range(span).start));
    }

    fn macro_body(&mut self, m: &Macro<'_>) {
        m.defaults.iter().for_each(|e| self.expression(e));
        self.scoped(|this| {
            this.define_name("caller");
            m.args.iter().for_each(|arg| this.define(arg));
            this.statements(&m.body);
        });
    }

    fn arguments(&mut self, args: &[CallArg<'_>]) {
        for arg in args {
            match arg {
                CallArg::Pos(e)
                | CallArg::Kwarg(_, e)
                | CallArg::PosSplat(e)
                | CallArg::KwargSplat(e) => {
                    self.expression(e);
                }
            }
        }
    }

    pub(super) fn expression(&mut self, expr: &Expr<'_>) {
        match expr {
            Expr::Var(_) | Expr::GetAttr(_) | Expr::GetItem(_) => self.lookup(expr, false),
            Expr::Const(_) => {}
            Expr::Slice(s) => {
                self.expression(&s.expr);
                [&s.start, &s.stop, &s.step]
                    .into_iter()
                    .flatten()
                    .for_each(|e| self.expression(e));
            }
            Expr::UnaryOp(u) => self.expression(&u.expr),
            Expr::BinOp(b) => [&b.left, &b.right]
                .into_iter()
                .for_each(|e| self.expression(e)),
            Expr::Compare(c) => {
                self.expression(&c.expr);
                c.ops.iter().for_each(|op| self.expression(&op.expr));
            }
            Expr::IfExpr(i) => {
                [&i.test_expr, &i.true_expr]
                    .into_iter()
                    .for_each(|e| self.expression(e));
                i.false_expr.iter().for_each(|e| self.expression(e));
            }
            Expr::Filter(f) => {
                f.expr.iter().for_each(|e| self.expression(e));
                self.arguments(&f.args);
                let missing = environment().empty_state().apply_filter(f.name, &[]);
                if missing.is_err_and(|error| error.kind() == ErrorKind::UnknownFilter) {
                    self.problems.push((
                        format!("there is no filter {:?}", f.name),
                        range(f.span()).start,
                    ));
                }
            }
            Expr::Test(t) => {
                self.expression(&t.expr);
                self.arguments(&t.args);
                let missing = environment().empty_state().perform_test(t.name, &[]);
                if missing.is_err_and(|error| error.kind() == ErrorKind::UnknownTest) {
                    self.problems.push((
                        format!("there is no test {:?}", t.name),
                        range(t.span()).start,
                    ));
                }
            }
            Expr::Call(c) => self.call(c),
            Expr::List(l) => l.items.iter().for_each(|e| self.expression(e)),
            Expr::Tuple(t) => t.items.iter().for_each(|e| self.expression(e)),
            Expr::Map(m) => m
                .keys
                .iter()
                .chain(&m.values)
                .for_each(|e| self.expression(e)),
        }
    }

    /// A name, or a chain of lookups.
    fn lookup(&mut self, expr: &Expr<'_>, called: bool) {
        let end = range(expr.span()).end;
        let mut fields = Vec::new();
        let mut dynamic = false;
        let mut base = expr;
        loop {
            match base {
                Expr::GetAttr(get) => {
                    fields.push(get.name.to_owned());
                    base = &get.expr;
                }
                Expr::GetItem(get) => {
                    match get
                        .subscript_expr
                        .as_const()
                        .as_ref()
                        .and_then(|value| value.as_str())
                    {
                        Some(name) => fields.push(name.to_owned()),
                        None => {
                            // What is looked up in the unknown field says nothing about the root.
                            fields.clear();
                            dynamic = true;
                            self.expression(&get.subscript_expr);
                        }
                    }
                    base = &get.expr;
                }
                Expr::Var(var) => {
                    if !self.scopes.iter().any(|scope| scope.contains(var.id)) {
                        fields.reverse();
                        let root = var.id.to_owned();
                        let at = range(var.span()).start..end;
                        self.references.push(Reference {
                            root,
                            fields,
                            dynamic,
                            called: called && !dynamic,
                            at,
                        });
                    }
                    return;
                }
                other => return self.expression(other),
            }
        }
    }

    fn call(&mut self, call: &Call<'_>) {
        self.arguments(&call.args);
        let Expr::GetAttr(method) = &call.expr else {
            return self.lookup_or_walk(&call.expr);
        };
        let shadowed = |this: &Self, id: &str| this.scopes.iter().any(|scope| scope.contains(id));
        match &method.expr {
            Expr::Var(var)
                if method.name == "xcom_pull"
                    && matches!(var.id, "ti" | "task_instance")
                    && !shadowed(self, var.id) =>
            {
                self.pull(&call.args);
            }
            _ => {
                self.lookup(&call.expr, true);
                self.constant_get(call);
            }
        }
    }

    fn lookup_or_walk(&mut self, expr: &Expr<'_>) {
        match expr {
            Expr::Var(_) | Expr::GetItem(_) => self.lookup(expr, true),
            other => self.expression(other),
        }
    }

    /// `var.value.get('name')` and `conn.get('id')` name what they want as plainly as a field does.
    fn constant_get(&mut self, call: &Call<'_>) {
        let is_lookup = self.references.last().is_some_and(|last| {
            last.called
                && last.fields.last().is_some_and(|field| field == "get")
                && matches!(
                    (last.root.as_str(), last.fields.len()),
                    ("var", 2) | ("conn", 1)
                )
        });
        let Some(CallArg::Pos(name)) = call.args.first().filter(|_| is_lookup) else {
            return;
        };
        if let (Some(name), Some(last)) = (name.as_const(), self.references.last_mut())
            && let Some(name) = name.as_str()
        {
            last.fields.pop();
            last.fields.push(name.to_owned());
            last.called = false;
        }
    }

    fn pull(&mut self, args: &[CallArg<'_>]) {
        let mut task_ids = None;
        let mut key = None;
        let mut position = 0;
        for arg in args {
            match arg {
                CallArg::Pos(e) => {
                    match position {
                        0 => task_ids = Some(e),
                        1 => key = Some(e),
                        _ => {}
                    }
                    position += 1;
                }
                CallArg::Kwarg("task_ids", e) => task_ids = Some(e),
                CallArg::Kwarg("key", e) => key = Some(e),
                CallArg::Kwarg(..) => {}
                CallArg::PosSplat(_) | CallArg::KwargSplat(_) => self.dynamic_pull = true,
            }
        }
        let key = match key.map(|key| key.as_const()) {
            None => Some("return_value".to_owned()),
            Some(Some(value)) if value.is_none() => Some("return_value".to_owned()),
            Some(value) => value.and_then(|value| value.as_str().map(str::to_owned)),
        };
        let one = |this: &mut Self, id: &Expr<'_>| match id
            .as_const()
            .as_ref()
            .and_then(|v| v.as_str())
        {
            Some(task_id) => this.pulls.push(Pull {
                task_id: task_id.to_owned(),
                key: key.clone(),
                at: range(id.span()),
            }),
            None => this.dynamic_pull = true,
        };
        match task_ids {
            None => self.problems.push((
                "ti.xcom_pull needs the id of a task, as in ti.xcom_pull('extract')".to_owned(),
                0,
            )),
            Some(Expr::List(list)) => list.items.iter().for_each(|id| one(self, id)),
            Some(Expr::Tuple(tuple)) => tuple.items.iter().for_each(|id| one(self, id)),
            Some(id) => one(self, id),
        }
    }
}
