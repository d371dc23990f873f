module github.com/penstock/penstock/schema

go 1.26.0
