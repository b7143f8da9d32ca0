import { createClient } from '@supabase/supabase-js'
import { StrictMode } from 'react'
import { createRoot } from 'react-dom/client'
import { App } from './App'
import type { Database } from './database.types'
import { Identities } from './identities'
import './styles.css'

const { VITE_SUPABASE_URL: url, VITE_SUPABASE_PUBLISHABLE_KEY: key } = import.meta.env as Record<string, string | undefined>
const root = createRoot(document.getElementById('root')!)
if (url && key) {
  const identities = new Identities(createClient<Database>(url, key), url, key)
  root.render(<StrictMode><App identities={identities} /></StrictMode>)
} else {
  root.render(<p>Set VITE_SUPABASE_URL and VITE_SUPABASE_PUBLISHABLE_KEY, then start or build the page again.</p>)
}
