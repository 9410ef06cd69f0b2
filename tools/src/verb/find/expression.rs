//! Expressions of find: tests that are joined by `-a` (the default), `-o`, `!` and parentheses.

use clap::{ArgMatches, error::ErrorKind};

use super::test::Test;

/// Maximum number of nested parentheses and negations.
const DEPTH_MAX: usize = 64;

/// A test or an operator of the command line.
#[derive(Clone, Debug)]
pub enum Token {
    /// A test.
    Test(Test),
    /// The expression before it and that after it.
    And,
    /// The expression before it or that after it.
    Or,
    /// Negates the test or the parentheses after it.
    Not,
    /// Opens parentheses.
    Open,
    /// Closes parentheses.
    Close,
}

impl Token {
    /// Returns the operator of a name, or the test that has no value.
    pub fn operator(name: &str) -> Self {
        match name {
            "and" => Self::And,
            "or" => Self::Or,
            "not" => Self::Not,
            "open" => Self::Open,
            "empty" => Self::Test(Test::Empty),
            _ => Self::Close,
        }
    }
}

/// An expression.
#[derive(Clone, Debug)]
pub enum Expression {
    /// A test.
    Test(Test),
    /// The negation of an expression.
    Not(Box<Expression>),
    /// True if all are true. Without expressions it is true.
    All(Vec<Expression>),
    /// True if one is true.
    Any(Vec<Expression>),
}

impl Expression {
    /// Collects the options with these names, in the order of the command line.
    ///
    /// # Errors
    /// If an operator or a parenthesis is out of place.
    pub fn of_matches<'a>(
        matches: &ArgMatches,
        ids: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, clap::Error> {
        let mut tokens = Vec::new();
        for id in ids {
            // An option without a value is no token.
            let Ok(values) = matches.try_get_many::<Token>(id) else { continue };
            let values = values.into_iter().flatten().cloned();
            tokens.extend(matches.indices_of(id).into_iter().flatten().zip(values));
        }
        tokens.sort_by_key(|(index, _)| *index);
        let tokens = tokens.into_iter().map(|(_, token)| token);
        Self::parse(tokens).map_err(|wrong| clap::Error::raw(ErrorKind::ValueValidation, wrong))
    }

    fn parse(tokens: impl Iterator<Item = Token>) -> Result<Self, &'static str> {
        let mut parser = Parser { tokens: tokens.peekable(), depth: 0 };
        if parser.tokens.peek().is_none() {
            return Ok(Self::All(Vec::new()));
        }
        let expression = parser.any()?;
        match parser.tokens.next() {
            None => Ok(expression),
            Some(_) => Err("there is a ) without a ("),
        }
    }

    /// Returns true if the expression holds, where `passes` decides each test.
    pub fn holds(&self, passes: &mut impl FnMut(&Test) -> bool) -> bool {
        match self {
            Self::Test(test) => passes(test),
            Self::Not(expression) => !expression.holds(passes),
            Self::All(all) => all.iter().all(|expression| expression.holds(passes)),
            Self::Any(any) => any.iter().any(|expression| expression.holds(passes)),
        }
    }

    /// Calls `change` for each test.
    ///
    /// # Errors
    /// The first error of `change`.
    pub fn for_each<E>(
        &mut self,
        change: &mut impl FnMut(&mut Test) -> Result<(), E>,
    ) -> Result<(), E> {
        match self {
            Self::Test(test) => change(test),
            Self::Not(expression) => expression.for_each(change),
            Self::All(inner) | Self::Any(inner) => {
                inner.iter_mut().try_for_each(|expression| expression.for_each(change))
            }
        }
    }
}

struct Parser<I: Iterator<Item = Token>> {
    tokens: std::iter::Peekable<I>,
    depth: usize,
}

impl<I: Iterator<Item = Token>> Parser<I> {
    /// Expressions joined by `-o`.
    fn any(&mut self) -> Result<Expression, &'static str> {
        let mut any = vec![self.all()?];
        while self.tokens.next_if(|token| matches!(token, Token::Or)).is_some() {
            any.push(self.all()?);
        }
        Ok(Expression::Any(any))
    }

    /// Expressions joined by `-a`, which may be left out.
    fn all(&mut self) -> Result<Expression, &'static str> {
        let mut all = vec![self.one()?];
        loop {
            match self.tokens.peek() {
                None | Some(Token::Or | Token::Close) => return Ok(Expression::All(all)),
                Some(Token::And) => drop(self.tokens.next()),
                Some(_) => {}
            }
            all.push(self.one()?);
        }
    }

    fn one(&mut self) -> Result<Expression, &'static str> {
        let missing = "an operator has no test beside it";
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("the expression is nested too deep");
        }
        let expression = match self.tokens.next().ok_or(missing)? {
            Token::Test(test) => Expression::Test(test),
            Token::Not => Expression::Not(Box::new(self.one()?)),
            Token::Open => {
                let inner = self.any()?;
                let closed = self.tokens.next_if(|token| matches!(token, Token::Close));
                closed.map(|_| inner).ok_or("there is a ( without a )")?
            }
            Token::And | Token::Or | Token::Close => return Err(missing),
        };
        self.depth -= 1;
        Ok(expression)
    }
}
