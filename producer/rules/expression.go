package rules

import (
	"errors"
	"fmt"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/ext"
)

// maxCost bounds one evaluation in CEL's cost units; about a millisecond.
const maxCost = 1_000_000

func environment() (*cel.Env, error) {
	env, err := cel.NewEnv(
		ext.Strings(),
		cel.Variable("source", cel.StringType),
		cel.Variable("tenant", cel.StringType),
		cel.Variable("session_id", cel.StringType),
		cel.Variable("text", cel.StringType),
		cel.Variable("text_lower", cel.StringType),
		cel.Variable("length", cel.IntType),
		cel.Variable("context", cel.DynType),
		cel.Variable("labels", cel.MapType(cel.StringType, cel.StringType)),
	)
	if err != nil {
		return nil, fmt.Errorf("set up the rule language: %w", err)
	}
	return env, nil
}

func program(env *cel.Env, when string) (cel.Program, error) {
	if when == "" {
		return nil, errors.New(`when is required; "true" matches everything`)
	}
	ast, issues := env.Compile(when)
	if issues.Err() != nil {
		return nil, fmt.Errorf("when: %w", issues.Err())
	}
	if !ast.OutputType().IsExactType(cel.BoolType) {
		return nil, fmt.Errorf("when: is a %s, must be a bool", ast.OutputType())
	}
	p, err := env.Program(ast, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxCost))
	if err != nil {
		return nil, fmt.Errorf("when: %w", err)
	}
	return p, nil
}

func (r *compiled) match(vars *variables) (bool, error) {
	out, _, err := r.program.Eval(vars)
	if err != nil {
		return false, err
	}
	match, ok := out.Value().(bool)
	return match && ok, nil
}
