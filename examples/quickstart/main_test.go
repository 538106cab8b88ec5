package main

func Example() {
	main()
	// Output:
	// 200 replayed=false held for ann
	// 200 replayed=false held for bob
	// 409 replayed=false {"status":409,"title":"Every unit is sold or held for somebody; some may become free.","type":"urn:firstcome:all-held"}
	// 200 replayed=true held for ann
}
