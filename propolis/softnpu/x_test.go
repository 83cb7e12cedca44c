package softnpu
import "testing"
func TestX(t *testing.T){
 p,err:=Compile(BuiltIn(),4)
 if err!=nil{t.Fatal(err)}
 for _,x:=range p.Tables(){t.Log(x.Name,x.Keys,x.Actions)}
}
