module ipsecd/bench

go 1.26.0

require ipsecd v0.0.0

replace ipsecd => ../
